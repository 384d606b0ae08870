-- House 4: two tables; findings and impression are rows of the second one, cut into lines of limited length.
CREATE SCHEMA IF NOT EXISTS his_4;
CREATE TABLE IF NOT EXISTS his_4.report (
  id text COLLATE "C" PRIMARY KEY,
  acc text NOT NULL UNIQUE,
  pid text NOT NULL,
  sex text,
  age_years integer,
  kind text NOT NULL,
  part text NOT NULL,
  title text NOT NULL,
  origin text,
  indication text,
  state text NOT NULL,
  written_by text,
  written_rank text,
  verified_by text,
  verified_rank text,
  examined timestamptz,
  written timestamptz,
  verified timestamptz,
  touched timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS his_4.result (
  report_id text NOT NULL REFERENCES his_4.report,
  section text NOT NULL,
  line integer NOT NULL,
  content text NOT NULL,
  PRIMARY KEY (report_id, section, line)
);
CREATE INDEX IF NOT EXISTS report_touched ON his_4.report (touched, id);
