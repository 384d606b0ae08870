"""A real MariaDB with GBK text: local times, characters that GBK lacks, and bytes that the server takes for Latin-1."""

from datetime import timedelta

from tests.ingest.hospital import FINDINGS, IMPRESSION, NOON, Hospital


def test_gbk_text_and_local_times_arrive_right(south: Hospital) -> None:
    south.write(1, yx="弢東區：右肺上叶见结节影，5mm×4mm。")
    south.write(2, at=NOON + timedelta(minutes=1))
    assert south.poll().stored == 2
    assert south.report(1).findings_raw == "弢東區：右肺上叶见结节影，5mm×4mm。"
    assert south.report(1).modified_at == NOON
    assert south.poll().unchanged == 2


def test_a_character_that_the_hospital_lost_keeps_the_report_from_training(south: Hospital) -> None:
    with south.connection.cursor() as cursor:
        cursor.execute("SET sql_mode = ''")
    south.write(1, yx="肝右叶见囊状低密度影，面积约3.2cm²。")
    south.poll()
    assert (south.report(1).findings_raw, south.report(1).excluded) == (
        "肝右叶见囊状低密度影，面积约3.2cm?。",
        "lossy_source",
    )


def test_gbk_in_a_latin1_column_is_quarantined_and_read_right_as_bytes(south: Hospital) -> None:
    south.write(1)
    with south.connection.cursor() as cursor:
        cursor.execute("UPDATE report SET latin = %s", [FINDINGS.encode("gbk")])
    south.describe(findings="latin")
    assert south.poll().quarantined == 1
    assert [row.reason for row in south.quarantined()] == ["mojibake"]
    south.describe(findings="CAST(latin AS BINARY)", extra='charset = "gb18030"')
    assert south.poll().stored == 1
    assert (south.report(1).findings_raw, south.report(1).impression) == (FINDINGS, IMPRESSION)
    assert south.quarantined() == []


def test_bytes_cut_in_the_middle_of_a_character_are_quarantined(south: Hospital) -> None:
    south.write(1)
    with south.connection.cursor() as cursor:
        cursor.execute("UPDATE report SET latin = %s", [FINDINGS.encode("gbk")[:-3]])
    south.describe(findings="CAST(latin AS BINARY)", extra='charset = "gb18030"')
    assert south.poll().quarantined == 1
    assert [row.reason for row in south.quarantined()] == ["undecodable"]


def test_rows_without_a_usable_time_are_found_in_mariadb_too(south: Hospital) -> None:
    with south.connection.cursor() as cursor:
        cursor.execute("SET sql_mode = ''")
    south.write(1)
    south.poll()
    south.write(2, at=None)
    south.write(3, at=None, changed="0000-00-00 00:00:00")
    assert south.poll().stored == 2
