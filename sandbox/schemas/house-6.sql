-- House 6: a table that nobody outside may read and a view for others, in pinyin initials, with every date as text.
CREATE SCHEMA IF NOT EXISTS his_6;
CREATE TABLE IF NOT EXISTS his_6.jcbg (
  jch varchar(40) NOT NULL UNIQUE,
  xh integer NOT NULL,
  brid varchar(40) NOT NULL,
  brxm varchar(40),
  sfzh varchar(18),
  lxdh varchar(20),
  brxb varchar(1),
  nl varchar(8),
  jclx varchar(4) NOT NULL,
  jcbw varchar(80) NOT NULL,
  jcxm varchar(120) NOT NULL,
  brly varchar(1),
  bs varchar(800),
  yxbx varchar(8000),
  yxzd varchar(4000),
  bgzt varchar(1) NOT NULL,
  bgys varchar(40),
  bgyszc varchar(1),
  shys varchar(40),
  shyszc varchar(1),
  jcsj varchar(14),
  bgrq varchar(8),
  bgsj varchar(6),
  shsj varchar(14),
  xgsj varchar(14) NOT NULL,
  PRIMARY KEY (jch, xh)
);
CREATE INDEX IF NOT EXISTS jcbg_xgsj ON his_6.jcbg (xgsj, jch);
CREATE OR REPLACE VIEW his_6.v_ris_bg AS
  SELECT jch || '||' || xh AS bgid, jch, brid, brxm, sfzh, lxdh, brxb, nl, jclx, jcbw, jcxm, brly, bs, yxbx, yxzd, bgzt,
    bgys, bgyszc, shys, shyszc, jcsj, bgrq, bgsj, shsj, xgsj
  FROM his_6.jcbg;
