-- One row. `now` is the generation of the data, which changes when they are restored from a backup or moved. `before` is the
-- previous generation. `is_copy`: the data are an unused backup; the program that opens them begins a generation.
CREATE TABLE generation (now INTEGER NOT NULL, before INTEGER NOT NULL, is_copy INTEGER NOT NULL) STRICT;
INSERT INTO generation VALUES (0, 0, 0);

-- The last conversation_seq from before this generation.
ALTER TABLE conversations ADD COLUMN kept INTEGER NOT NULL DEFAULT 0;
