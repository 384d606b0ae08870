"""Report texts with planted identities of nobody, to measure what de-identification finds and what it harms.

The wordings of labels and of the sentences around them are this file's own: how forms, stamps and dictated asides read in hospitals, not what the
rules of `clinical.deidentify` list. Each canary names the very string that has to go.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from sandbox.script import traditional

FINDINGS = (
    "两肺纹理增多，右肺上叶见实性结节，大小约5.6×3.2cm（Se5，Im186），SUVmax约4.7。",
    "肝脏形态正常，S8段见类圆形低密度影，直径约12mm，CT值约35HU，较2025-10-03片增大。",
    "L4/5椎间盘突出，椎管前后径约11mm，T2WI呈稍高信号，DWI未见受限。",
    "左乳外上象限肿块，大小约23mm×18mm，BI-RADS 4A类，边缘毛刺。",
    "双侧基底节区见斑点状低密度影，中线结构居中，脑室系统未见扩张。",
    "右股骨颈骨折，断端嵌插，关节对位良好，软组织肿胀。",
)
_COMMON = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林罗高郑梁谢宋唐许韩邓冯曹彭曾肖田董袁潘于蒋蔡余杜叶程苏魏吕丁任沈姚卢姜崔钟谭陆汪范金"
    "石廖贾夏韦付方白邹孟熊秦邱江尹薛闫段雷侯龙史陶黎贺顾毛郝龚邵万钱严覃武戴莫孔向汤"
)
_TWO = ("欧阳", "司马", "上官", "诸葛", "皇甫", "尉迟", "令狐", "司徒", "夏侯", "慕容", "东方", "长孙")
_GIVEN = (
    "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华玉兰萍红建国文志海燕春梅雪婷浩宇轩梓涵欣怡嘉俊晨思雨子墨小大少永金月云凤"
    "珍荣福生昌兴德仁义礼智信忠孝廉耻安康宁静远清波山川江河星辰"
)
_FAR = (
    "买买提·吐尔逊", "阿依古丽·艾合买提", "迪丽努尔·阿不都热依木", "努尔兰·哈山", "扎西·多吉", "古丽娜尔·沙塔尔", "帕提古丽·玉素甫",
    "艾尔肯·司马义·卡德尔",
)  # fmt: skip
_PLACES = (
    "浙江省杭州市西湖区文三路{n}号{m}幢{k}室", "广东省深圳市南山区科技园南路{n}号", "河北省保定市清苑县东闾乡大阳村{n}号",
    "上海市徐汇区宛平南路{n}弄{m}号{k}室",
    "四川省成都市武侯区人民南路四段{n}号{m}栋{k}单元", "湖南省长沙市岳麓区麓山南路{n}号", "北京市朝阳区建国门外大街{n}号院{m}号楼",
)  # fmt: skip
_FULL = str.maketrans(
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ-",
    "０１２３４５６７８９ＡＢＣＤＥＦＧＨＩＪＫＬＭＮＯＰＱＲＳＴＵＶＷＸＹＺ－",
)
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)

_FRAMES = {
    "name": (
        "姓名：{}", "姓名:{}", "姓名 {}", "姓名{}，", "【姓名】{}", "姓名={}", "姓名（{}）", "患者姓名：{} 性别：女", "病员姓名：{}",
        "病人：{}，男，56岁", "患者{}，男，63岁",
        "患者{}因咳嗽来院", "病人{}，急诊入院", "家属{}要求告知", "患者家属{}已知情", "患儿{}哭闹", "受检者姓名：{}", "Name: {}", "体检人姓名：{}",
        "已与{}先生核对", "{}女士自诉腹痛", "请{}同志签字",
    ),
    "doctor": (
        "报告医师：{}", "审核医生：{}", "诊断医师 {}", "阅片者：{}", "技师：{}", "记录者：{}", "已电话通知急诊科{}医生", "结果已告知{}主任",
        "请{}教授会诊后", "与骨科{}医师沟通",
        "向{}大夫汇报", "病房{}护士接电话", "复核：{}", "报告人：{}", "上级医师签名：{}", "主治医师：{}",
    ),
    "number": (
        "住院号：{}", "门诊号:{}", "检查号 {}", "影像号：{}", "ID号：{}", "登记号{}", "【病案号】{}", "住院号（{}）", "就诊卡号：{}", "申请单号={}",
        "X光号：{}", "健康档案编号：{}",
        "与外院检查号{}片比较", "放射编号：{}", "ID: {}", "Accession No. {}", "体检编号：{}", "病历号为{}", "流水号#{}",
    ),
    "phone": (
        "联系电话：{}", "手机：{}", "电话 {}", "手机号{}", "致电{}", "家属电话：{}", "（{}）", "，{}，", "Tel: {}", "联系方式：{}", "电话号码是{}",
        "通知{}已接听", "微信同号{}",
    ),
    "landline": ("电话：{}", "座机{}", "科室电话 {}", "联系方式：{}", "回电{}", "，{}。", "Tel {}"),
    "card": ("身份证号：{}", "身份证{}", "证件号码：{}", "身份证号码 {}", "公民身份号码：{}", "，{}，", "（{}）", "社会保障号：{}"),
    "address": ("住址：{}", "家庭住址：{}", "现住{}", "地址 {}", "联系地址：{}", "家住{}，", "户籍地址：{}", "患者现居于{}，"),
    "birth": ("出生日期：{}", "出生年月：{}", "生日：{}", "DOB: {}", "{}出生", "患者{}生，", "出生于{}"),
    "bed": ("床号：{}", "床位：{}床", "内科{}床", "{}床患者", "病床号：{}", "病区{}床"),
}  # fmt: skip


@dataclass(frozen=True)
class Canary:
    """`secret` stands in `text` once and must not be left there; `known` is what the record itself says of the patient."""

    kind: str
    text: str
    secret: str
    findings: str
    known: tuple[str, ...] = ()


def canaries(count: int, seed: int) -> Iterator[Canary]:
    """The same ones for the same seed: kinds in turn, each in one of its frames, positions and notations."""
    rng = Random(seed)
    kinds = tuple(_FRAMES)
    for number in range(count):
        yield _planted(rng, kinds[number % len(kinds)])


def known_canaries(count: int, seed: int) -> Iterator[Canary]:
    """Names and numbers that stand without any label, of which the record itself knows."""
    rng = Random(seed)
    for _ in range(count):
        secret = rng.choice((name, _number, _phone))(rng)
        findings = rng.choice(FINDINGS)
        shown = secret if rng.random() < 0.7 or "·" in secret else " ".join(secret)
        yield Canary(
            "known",
            rng.choice(("{}{}", "{1}附注{0}", "{1}（{0}）")).format(shown, findings),
            shown,
            findings,
            (secret,),
        )


def name(rng: Random) -> str:
    """Two to four characters, or of Uyghur, Kazakh or Tibetan form."""
    kind = rng.random()
    if kind < 0.1:
        return rng.choice(_FAR)
    if kind < 0.2:
        return rng.choice(_TWO) + "".join(rng.choices(_GIVEN, k=rng.choice((1, 2))))
    return rng.choice(_COMMON) + "".join(rng.choices(_GIVEN, k=rng.choice((1, 2, 2))))


def _planted(rng: Random, kind: str) -> Canary:
    secret = _SECRETS[kind](rng)
    frame = rng.choice(_FRAMES[kind])
    if kind in ("name", "doctor") and "·" not in secret and frame.endswith("：{}") and rng.random() < 0.1:
        secret = " ".join(secret)
    planted = frame.format(secret)
    findings = rng.choice(FINDINGS)
    where = rng.randrange(5)
    cut = findings.index("，") + 1
    text = (
        f"{planted}\n{findings}" if where == 0
        else f"{findings}\n{planted}" if where == 1
        else f"{findings}{planted}。" if where == 2
        else f"{findings[:cut]}{planted}，{findings[cut:]}" if where == 3
        else f"{findings}（{planted}）"
    )  # fmt: skip
    way = rng.random()
    if way < 0.12:
        return Canary(kind, traditional(text), traditional(secret), traditional(findings))
    if way < 0.24 and kind in ("number", "phone", "landline", "card"):
        full = secret.translate(_FULL)
        return Canary(kind, text.replace(secret, full), full, findings)
    return Canary(kind, text, secret, findings)


def _digits(rng: Random, count: int) -> str:
    return "".join(str(rng.randrange(10)) for _ in range(count))


def _number(rng: Random) -> str:
    return (
        rng.choice(("", "CT", "MR", "ZY", "DR", "M")) + str(rng.randrange(1, 10)) + _digits(rng, rng.randrange(5, 12))
    )


def _phone(rng: Random) -> str:
    plain = "1" + rng.choice("3456789") + _digits(rng, 9)
    way = rng.randrange(6)
    return (
        f"{plain[:3]} {plain[3:7]} {plain[7:]}" if way == 0
        else f"{plain[:3]}-{plain[3:7]}-{plain[7:]}" if way == 1
        else " ".join(plain) if way == 2
        else f"+86 {plain}" if way == 3
        else plain
    )  # fmt: skip


def _landline(rng: Random) -> str:
    area, local = rng.choice(("010", "021", "0571", "0755", "028", "0312")), rng.choice("2345678") + _digits(rng, 7)
    return rng.choice(
        (f"{area}-{local}", f"({area}){local}", f"{area}{local}", f"{area} {local}", f"{area}-{local[:4]} {local[4:]}")
    )


def _card(rng: Random) -> str:
    birth = f"{rng.randrange(1930, 2020)}{rng.randrange(1, 13):02d}{rng.randrange(1, 29):02d}"
    if rng.random() < 0.2:
        return f"990000{birth[2:]}{_digits(rng, 3)}"
    body = f"990000{birth}{_digits(rng, 3)}"
    card = body + "10X98765432"[sum(int(d) * w for d, w in zip(body, _WEIGHTS, strict=True)) % 11]
    return f"{card[:6]} {card[6:14]} {card[14:]}" if rng.random() < 0.2 else card


def _address(rng: Random) -> str:
    return rng.choice(_PLACES).format(n=rng.randrange(1, 999), m=rng.randrange(1, 30), k=rng.randrange(101, 2000))


def _birth(rng: Random) -> str:
    year, month, day = rng.randrange(1930, 2020), rng.randrange(1, 13), rng.randrange(1, 29)
    return rng.choice(
        (
            f"{year}年{month}月{day}日",
            f"{year}-{month:02d}-{day:02d}",
            f"{year}/{month}/{day}",
            f"{year}.{month:02d}.{day:02d}",
            f"{year}{month:02d}{day:02d}",
        )
    )


def _bed(rng: Random) -> str:
    return rng.choice(
        (str(rng.randrange(1, 80)), f"+{rng.randrange(1, 9)}", f"加{rng.randrange(1, 9)}", f"A{rng.randrange(1, 40)}")
    )


_SECRETS = {
    "name": name, "doctor": name, "number": _number, "phone": _phone, "landline": _landline, "card": _card, "address": _address, "birth": _birth, "bed": _bed,
}  # fmt: skip
