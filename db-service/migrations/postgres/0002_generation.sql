-- Programs whose newest schema is at least `oldest` work with this version; NULL: only those that know it.
ALTER TABLE schema_version ADD COLUMN oldest bigint;

-- One row. `now` is another number after the data were restored from a backup or moved, `before` what it was before.
CREATE TABLE generation (now bigint NOT NULL, before bigint NOT NULL);
INSERT INTO generation VALUES (0, 0);

-- The last number that this generation took over.
ALTER TABLE conversations ADD COLUMN kept bigint NOT NULL DEFAULT 0;
