-- House 5: traditional script throughout, status words instead of codes.
CREATE SCHEMA IF NOT EXISTS his_5;
CREATE TABLE IF NOT EXISTS his_5.imaging_report (
  uid text COLLATE "C" PRIMARY KEY,
  order_no text NOT NULL UNIQUE,
  chart_no text NOT NULL,
  gender text,
  age_text text,
  device text NOT NULL,
  region text NOT NULL,
  exam_name text NOT NULL,
  visit_kind text,
  clinical_note text,
  finding text,
  conclusion text,
  state text NOT NULL,
  reporter text,
  reporter_rank text,
  approver text,
  approver_rank text,
  exam_at timestamptz,
  report_at timestamptz,
  approve_at timestamptz,
  modified_at timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS imaging_report_modified ON his_5.imaging_report (modified_at, uid);
