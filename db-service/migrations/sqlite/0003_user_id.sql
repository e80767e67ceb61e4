-- The same names as in PostgreSQL, so that both stores share their statements.
ALTER TABLE members RENAME COLUMN user TO user_id;
ALTER TABLE users RENAME COLUMN user TO user_id;
ALTER TABLE sessions RENAME COLUMN user TO user_id;
