-- One row. `now` is another number after the data were restored from a backup or moved, `before` what it was before.
-- `is_copy`: these data are a backup that nobody has used yet; whoever opens them begins a generation.
CREATE TABLE generation (now INTEGER NOT NULL, before INTEGER NOT NULL, is_copy INTEGER NOT NULL) STRICT;
INSERT INTO generation VALUES (0, 0, 0);

-- The last number that this generation took over.
ALTER TABLE conversations ADD COLUMN kept INTEGER NOT NULL DEFAULT 0;
