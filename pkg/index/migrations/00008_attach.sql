-- SPDX-License-Identifier: AGPL-3.0-only

-- +goose Up

-- Makes the partition of a month of a signal's segments; the advisory lock lets one process at a time make partitions.
--
-- Attaching a partition takes no lock that a reader would wait for, and that is too little for us: who is planning a statement, and has
-- seen the parent's partitions already, hears of the new one before its plan is there to be thrown away. The plan would then be kept without
-- the partition, and every later run of the statement on that connection would overlook the month. So the parent is locked against everybody,
-- for the moment of the attachment. Whoever waits for the lock behind us waits for a second at most before he has his turn.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION make_segment_month(parent text, month_start timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    month timestamp := date_trunc('month', month_start AT TIME ZONE 'UTC');
    name  text := format('%s_%s', parent, to_char(month, 'YYYYMM'));
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('lakerunner.segments'));
    IF EXISTS (SELECT 1 FROM pg_inherits WHERE inhparent = parent::regclass AND inhrelid = to_regclass(name)) THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', name, parent);
    PERFORM set_config('lock_timeout', '1s', true);
    FOR attempt IN 1..30 LOOP
        BEGIN
            EXECUTE format('LOCK TABLE ONLY %I IN ACCESS EXCLUSIVE MODE', parent);
            EXIT;
        EXCEPTION
            WHEN lock_not_available THEN
                IF attempt = 30 THEN
                    RAISE;
                END IF;
        END;
    END LOOP;
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
        parent, name, month AT TIME ZONE 'UTC', (month + interval '1 month') AT TIME ZONE 'UTC');
END
$$;
-- +goose StatementEnd
