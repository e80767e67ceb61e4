-- A program works with this version if it supports version `oldest` or a newer one; NULL: it must support this version.
ALTER TABLE schema_version ADD COLUMN oldest bigint;

-- One row. `now` is the generation of the data, which changes when they are restored from a backup or moved. `before` is the
-- previous generation.
CREATE TABLE generation (now bigint NOT NULL, before bigint NOT NULL);
INSERT INTO generation VALUES (0, 0);

-- The last conversation_seq from before this generation.
ALTER TABLE conversations ADD COLUMN kept bigint NOT NULL DEFAULT 0;
