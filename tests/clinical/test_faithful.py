"""Impressions against findings: what must pass, what must be flagged, as tables. All texts are invented."""

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clinical.checks import CHECKS, Issue, Kind, Pair, Severity, check, version
from clinical.text import NoBorder, clean, deidentify, split_sections

LOUD = (Severity.RED, Severity.AMBER, Severity.WITHHOLD)


def loud(findings: str, impression: str, **known: object) -> list[Issue]:
    return [issue for issue in check(Pair(findings, impression, **known)) if issue.severity in LOUD]  # type: ignore[arg-type]


PASSES = [
    # units and roundings
    ("右肺上叶结节，直径约6mm。", "右肺上叶结节，约0.6cm。"),
    ("右肺上叶结节，大小约54×47mm。", "右肺上叶结节，大小约5.4×4.7cm。"),
    ("右肺上叶结节，大小约20mm×43mm。", "右肺上叶结节，大小约43×20mm。"),
    ("右肺上叶结节，大小约7×4mm。", "右肺上叶结节，长径约7mm。"),
    ("右肺上叶结节，大小约6.4mm。", "右肺上叶结节，约6mm。"),
    ("右侧基底节区血肿，约12ml。", "右侧基底节区血肿，约12cm³。"),
    ("右肺上叶结节，直径约6mm。", "右肺上叶结节。"),
    # sides
    ("双侧胸腔积液。", "两侧胸腔积液。"),
    ("右肺叶间裂包裹性积液。两侧胸腔见弧形低密度液体影。", "右肺叶间裂积液；两侧胸腔积液。"),
    ("左肾盏见致密小点。右侧输尿管上段见致密小块，近侧积水扩张。", "右侧输尿管上段结石，其上积水；左肾结石。"),
    ("双上颌窦黏膜增厚，窦腔积液。左侧蝶窦黏膜增厚。", "两侧上颌窦炎；左侧蝶窦炎。"),
    ("左侧胸腔积液。右侧胸腔积液。", "双侧胸腔积液。"),
    ("右肺上叶见结节。左肺下叶见结节。", "两肺结节。"),
    ("两肺多发结节，大者位于右肺上叶。", "右肺上叶结节。"),
    ("左侧基底节区及右侧放射冠见斑点状低密度影。", "脑内多发腔隙灶。"),
    ("右侧膈面抬高，肋膈角变钝。", "右侧胸腔积液。"),
    ("左心房增大，永存右上腔静脉，右冠优势型。", "左心房增大。"),
    ("右膝关节在位。髌上囊内见液体信号影。", "右膝关节积液。"),
    ("双侧卵巢囊性灶。", "双卵巢囊肿。"),
    # levels
    ("腰4/5椎间盘突出。", "L4/5椎间盘突出。"),
    ("腰4/5椎间盘突出。", "L4-5椎间盘突出。"),
    ("腰4/5椎间盘突出。", "第4、5腰椎间盘突出。"),
    ("腰5/骶1椎间盘膨出。", "L5/S1椎间盘膨出。"),
    ("胸12椎体楔形变。", "T12椎体压缩性骨折。"),
    ("腰2/3-腰5/骶1椎间盘突出。", "腰2/3、腰3/4椎间盘突出；腰4/5、L5/S1椎间盘突出。"),
    ("腰2/3-腰5/骶1椎间盘突出。", "腰3/4椎间盘突出较重，腰椎多发椎间盘突出。"),
    ("腰3-5椎体节段性不稳。", "L3-5椎体节段性不稳。"),
    ("胸7/8椎间盘突出。胸9/10-胸11/12椎间盘膨出。", "胸7/8椎间盘突出；胸9/10-胸11/12椎间盘膨出。"),
    ("腰1椎体压缩变扁，骨皮质中断。腰3椎体内见片状高信号。", "腰1椎体压缩性骨折；腰3椎体血管瘤。"),
    ("肝尾状叶S1段见高信号灶。肝S6段见小圆形高信号。", "肝S1段血管瘤；肝S6段囊肿。"),
    ("肝S8段见囊性灶。", "肝右叶囊肿。"),
    ("第5腰椎/第1骶椎椎间盘膨出。", "腰5/骶1椎间盘膨出。"),
    ("颈4、5及颈5、6间盘后突。", "颈4/5及颈5/6椎间盘突出。"),
    ("C4-5、C5-6、C6-7椎间盘突出。", "颈4/5、C5-6、C6-7椎间盘突出。"),
    ("L2/3椎间隙狭窄，相邻终板破坏，呈高信号。", "L2、L3椎体感染性病变。"),
    ("颈椎3个椎体溶骨破坏。", "颈椎多发骨质破坏。"),
    ("直肠中段肠壁增厚，系膜内见小淋巴结。", "直肠中段癌(T3N1M0)可能，系膜小淋巴结。"),
    ("肝Ⅷ段见囊性灶。", "肝S8段囊肿。"),
    ("右肺上叶尖段见结节。", "右肺上叶结节。"),
    # one side, where it is fair
    ("两肺多发结节，大者位于右肺下叶背段，为实性结节，大小约9×7mm。", "右肺下叶实性结节。"),
    ("左肾囊肿。右肾见点状高密度影。", "左肾囊肿；右肾结石。"),
    ("两肺多发囊肿。", "左肺囊肿；右肺囊肿。"),
    ("左侧上颌窦粘膜增厚。右侧上颌窦粘膜增厚。", "左侧上颌窦炎；右侧上颌窦炎。"),
    ("右侧额叶见斑点状高信号。左侧额叶见斑点状高信号。", "双侧额叶缺血灶。"),
    # words that stand for one thing at one place and for another elsewhere
    ("右肺下叶见斑片状高密度影。", "右肺下叶炎症。"),
    ("两肺支气管扩张，管壁增厚，以左肺下叶为著。", "两肺支气管扩张，左肺下叶为著。"),
    ("肝右叶及左叶见囊状低密度影。", "肝左叶及右叶囊肿。"),
    ("胆囊肿大，壁厚。", "胆囊肿大，胆囊炎可能。"),
    ("左侧颈部淋巴结，部分增大。", "左颈部淋巴结稍增大。"),
    # doubt about what something is, and not about whether it is seen
    ("右肺上叶见实性结节。", "右肺上叶结节可能为腺癌。"),
    ("左肾见囊性灶。", "左肾囊性灶可能系囊肿。"),
    ("鞍区见团块影，内有囊变区。", "鞍区占位，垂体腺瘤伴囊变可能。"),
    ("胰尾见稍低密度灶。", "胰尾稍低密度灶，肿瘤可能。"),
    ("左肺上叶见结节。右肺未见异常。", "胸部CT可见异常，左肺上叶结节。"),
    ("左肾见囊性灶。右肾未见异常。", "左肾单发囊肿。"),
    ("右肺中叶、左肺舌段支气管柱状扩张，管壁增厚。", "右肺中叶、左肺舌段支气管扩张。"),
    ("双侧胸腔积液，左侧为著。", "两侧胸腔积液，左侧较多。"),
    ("右侧第4-6肋骨骨皮质断裂。左侧第9肋骨骨质扭曲。", "右侧第4-6肋骨骨折；左侧第9肋骨骨折。"),
    ("左侧胸腔见无肺纹理透亮区，肺组织压缩约40%。", "左侧气胸，压缩约40%。"),
    # the midline of the body
    ("甲状腺右叶见肿块，越过中线，气管向左侧移位。", "甲状腺右叶占位，气管受压移位。"),
    # terms and signs
    ("右侧气胸，肺组织压缩约40%。", "右侧气胸(压缩约40%)。"),
    ("左颞叶肿块，中线右移约5mm。", "左颞叶占位，伴占位效应。"),
    ("左侧跟骨结节关节角变小，跟骨体见骨折线。", "左跟骨骨折。"),
    ("甲状腺右叶增大并见低密度结节。", "结节性甲状腺肿可能。"),
    ("鞍上池、环池见铸型高密度影。", "蛛网膜下腔出血，动脉瘤破裂可能。"),
    ("左侧颈内动脉末段未见显影。", "左侧颈内动脉末端闭塞。"),
    ("额部梭形高密度影位于颅板下。", "硬膜下血肿。"),
    ("左侧上颌窦粘膜增厚。", "左侧上颌窦炎。"),
    ("左侧上颌窦黏膜增厚。", "左侧副鼻窦炎。"),
    ("左侧基底节区见斑点状低密度影。", "左侧基底节区腔梗。"),
    ("胰头部见肿块。", "胰头占位，考虑胰腺Ca。"),
    ("诸椎体边缘骨质增生。", "腰椎退变。"),
    ("主动脉管壁钙化。", "动脉硬化。"),
    ("肝内类圆形低密度影。", "肝囊肿。"),
    ("胆囊内见结节状高密度影。", "胆囊结石。"),
    ("右下肺体积缩小、密实影。", "右下肺不张。"),
    ("肝实质密度弥漫性减低。", "脂肪肝。"),
    ("胆囊未见。", "胆囊术后缺如。"),
    # polarity, counts, comparisons, advice
    ("胸腔未见积液。", "胸腔未见积液。"),
    ("两肺见多个结节。", "两肺多发结节。"),
    ("右肺下叶2枚结节。", "右肺下叶多发结节。"),
    ("较前片，右肺结节增大。", "右肺结节，较前增大。"),
    ("右肺结节。", "右肺结节，建议3个月后复查。"),
    ("右肺结节。", "右肺结节，随诊复查。"),
    ("右肺结节。", "右肺结节，必要时增强CT除外转移。"),
    ("两肺未见异常密度影。", "胸部CT平扫未见明显异常。"),
    ("冠脉：LAD近段管腔中度狭窄（50-69%）。", "冠状动脉粥样硬化（CAD-RADS 3）。"),
    ("主动脉夹层术后，管壁见支架影。", "主动脉术后改变。"),
    ("椎体及附件骨质未见异常，腰4/5椎间盘膨出。", "腰4/5椎间盘膨出。"),
    ("雙側胸腔積液，右肺上葉結節。", "雙側胸腔積液；右肺上葉結節。"),
]


@pytest.mark.parametrize(("findings", "impression"), PASSES)
def test_a_faithful_impression_is_not_flagged(findings: str, impression: str) -> None:
    assert loud(findings, impression) == []


FLAGGED = [
    # a statement that is nearer to another finding leaves this one alone
    (Kind.CRITICAL, "red", "右额部颅板下见新月形高密度影。右枕部颅板下见梭形高密度影。", "右额部硬膜下血肿。"),
    (
        Kind.OMITTED,
        "amber",
        "两肺多发实性结节。右肺下叶见软组织肿块，边缘毛刺。左侧胸腔见弧形水样影。",
        "左侧胸腔积液。",
    ),
    (Kind.UNSUPPORTED, "amber", "左侧顶部头皮软组织肿胀。", "左侧顶部头皮软组织肿胀；左侧额部硬膜外血肿。"),
    (Kind.UNSUPPORTED, "amber", "腹部未见异常。双肾见囊状低密度影。", "双肾囊肿；右侧第4肋骨骨折。"),
    # one side alone, and names of both halves
    (Kind.SIDE, "red", "右踝关节诸骨骨质结构完整，未见骨折征象。", "左踝关节未见明显骨折征象。"),
    (Kind.SIDE, "red", "右小腿腓肠肌内侧头见片状高信号。", "左侧腓肠肌内侧头损伤。"),
    (Kind.LEVEL, "red", "【肺】左肺下叶见斑片状致密影。心影增大。", "左肺上叶肺炎；心影增大。"),
    (Kind.LEVEL, "red", "左侧枕叶脑表面散在小片出血及水肿。", "左侧顶叶脑挫裂伤。"),
    (Kind.LEVEL, "red", "腰4/5、腰5/骶1椎间盘突出。", "腰4/5、腰5/骶2椎间盘突出。"),
    (Kind.LEVEL, "red", "腰2椎体向前错位。腰5/骶1水平椎管前后径约6mm。", "腰2椎体滑脱；腰4/5水平椎管狭窄。"),
    (Kind.NEGATION, "red", "腹膜后未见肿大淋巴结。双肾见囊状低密度影。", "双肾囊肿；腹膜后淋巴结肿大。"),
    (Kind.NEGATION, "red", "胆囊腔内未见致密影。左肾见囊状低密度影。", "左肾囊肿；胆囊结石。"),
    (Kind.NEGATION, "red", "右肺上叶切除术后。", "未见右肺上叶术后改变。"),
    (
        Kind.COUNT,
        "amber",
        "肝右后叶S6段有类圆形水样密度灶，密度均匀，长径约58mm。肝密度减低。",
        "肝S6段多发囊肿；脂肪肝。",
    ),
    (Kind.COUNT, "amber", "腰4椎体内见粗大骨小梁，呈栅栏状。", "腰4椎体多发血管瘤。"),
    # side
    (Kind.SIDE, "red", "右肺上叶见结节。", "左肺上叶结节。"),
    (Kind.SIDE, "red", "右肺上叶实性小圆影，边清。", "左肺上叶实性结节。"),
    (Kind.SIDE, "red", "左侧胸腔弧形水样影。", "右侧胸腔积液。"),
    (Kind.SIDE, "red", "右肾见囊状低密度影；左肾见点状高密度影。", "左肾囊肿；右肾结石。"),
    (Kind.SIDE, "red", "左侧胸腔积液。", "双侧胸腔积液。"),
    (Kind.SIDE, "amber", "双肾多发囊肿。", "左肾囊肿。"),
    (Kind.SIDE, "red", "肝右叶见囊性灶。", "肝左叶囊肿。"),
    (Kind.SIDE, "red", "甲状腺左叶见结节。", "甲状腺右叶结节。"),
    (Kind.SIDE, "red", "胆囊结石。", "左侧胆囊结石。"),
    (Kind.SIDE, "red", "右膝关节在位。内侧半月板后角撕裂。", "左膝内侧半月板后角撕裂。"),
    (Kind.SIDE, "red", "中线结构向左移位。", "中线结构向右移位。"),
    (Kind.SIDE, "red", "左侧股骨颈骨皮质中断。", "右侧股骨颈骨折。"),
    (Kind.SIDE, "red", "两肺支气管扩张，以右肺为著。", "两肺支气管扩张，以左肺为著。"),
    (Kind.SIDE, "amber", "左肺舌段、右肺下叶见磨玻璃结节。", "右肺磨玻璃结节。"),
    (Kind.SIDE, "amber", "两肺多发结节，大者位于右肺下叶，为实性结节，约9mm。", "左肺结节。"),
    (Kind.SIDE, "amber", "两肺多发结节，大者位于右肺下叶，为实性结节，约9mm。", "右肺多发结节。"),
    (Kind.SIDE, "amber", "右侧肋膈角变钝。左侧肋膈角变钝。", "右侧胸腔积液。"),
    (Kind.SIDE, "amber", "两肺门淋巴结钙化。", "右侧肺门淋巴结钙化。"),
    (Kind.SIDE, "amber", "双侧腹股沟区见类圆形软组织影。", "左侧腹股沟区软组织影，考虑双侧隐睾。"),
    (Kind.SIDE, "amber", "两肺上叶见多发囊状透亮区。", "两肺大疱，左上叶为著。"),
    (Kind.SIDE, "red", "两肺支气管扩张，管壁增厚，以左肺为著。", "两肺支气管扩张，以右肺为著。"),
    (Kind.SIDE, "red", "门静脉主干及右支见充盈缺损。", "门静脉主干及左支癌栓。"),
    (Kind.SIDE, "red", "肝内多发囊性灶，大者位于肝右叶。", "肝左叶囊肿。"),
    (Kind.SIDE, "red", "双侧胸腔见弧形水样密度影，左侧为著。", "双侧胸腔积液，右侧为著。"),
    (Kind.SIDE, "red", "右侧第4-6肋骨骨皮质断裂。左侧第9肋骨骨质扭曲。", "左侧第4-6肋骨骨折；左侧第9肋骨骨折。"),
    (Kind.SIDE, "red", "左肺门淋巴结肿大。两肺散在小结节。", "右肺门淋巴结转移；两肺转移瘤。"),
    (Kind.SIDE, "red", "双膝骨质增生。左膝关节见游离体。", "双膝退行性变；右膝关节游离体。"),
    (Kind.SIDE, "amber", "左侧额部、右侧额部颅板下见弧形液体密度影。", "右侧硬膜下积液。"),
    # number
    (Kind.NUMBER, "red", "右肺上叶结节，直径约6mm。", "右肺上叶结节，约6cm。"),
    (Kind.NUMBER, "red", "右肺上叶结节，直径约6mm。", "右肺上叶结节，约9mm。"),
    (Kind.NUMBER, "red", "右肺上叶结节，大小约12×8mm。", "右肺上叶结节，大小约21×8mm。"),
    (Kind.NUMBER, "red", "肝内密度减低，CT值约30HU。", "脂肪肝，CT值约3HU。"),
    (Kind.NUMBER, "red", "右肺上叶结节，约6mm。左肺下叶结节，约15mm。", "右肺上叶结节，约15mm。"),
    (Kind.NUMBER, "red", "右肺上叶结节。", "右肺上叶结节，约5mm。"),
    (Kind.NUMBER, "red", "甲状腺左叶结节，TI-RADS 3类。", "甲状腺左叶结节（TI-RADS 4a类）。"),
    (Kind.NUMBER, "red", "LAD近段管腔中度狭窄（50-69%）。", "冠状动脉粥样硬化（CAD-RADS 1）。"),
    # polarity and certainty
    (Kind.NEGATION, "red", "左侧胸腔积液。", "左侧胸腔未见积液。"),
    (Kind.NEGATION, "red", "左侧胸腔弧形水样影。", "左侧胸腔未见积液。"),
    (Kind.NEGATION, "red", "胆囊未见结石。", "胆囊结石。"),
    (Kind.NEGATION, "red", "纵隔未见肿大淋巴结。", "纵隔淋巴结肿大。"),
    (Kind.NEGATION, "red", "右肺上叶见结节。", "胸部CT平扫两肺未见明显异常。"),
    (Kind.CERTAINTY, "amber", "腰1椎体骨折可能。", "腰1椎体骨折。"),
    (Kind.CERTAINTY, "amber", "肝右叶血管瘤。", "肝右叶血管瘤待排。"),
    (Kind.CERTAINTY, "amber", "左侧第5后肋骨质扭曲。", "左侧第5后肋骨质扭曲可能。"),
    (Kind.CERTAINTY, "amber", "胆囊增大。", "胆囊肿大不除外。"),
    (Kind.CERTAINTY, "amber", "右肺下叶支气管显示不清。", "右肺下叶支气管显示不清可能。"),
    (Kind.CERTAINTY, "amber", "左侧颈部淋巴结，部分稍大。", "左颈部淋巴结稍大可能。"),
    (Kind.NEGATION, "red", "两肺未见异常密度影。两侧胸膜未见异常。", "胸部CT平扫可见明显异常。"),
    (Kind.NEGATION, "red", "右侧声带增厚。", "右侧声带未见增厚。"),
    (Kind.NEGATION, "red", "膀胱右侧壁局部增厚。", "膀胱右侧壁未见增厚。"),
    (Kind.NEGATION, "red", "颈5/6椎间盘未见突出。腰4/5椎间盘突出。", "腰4/5椎间盘未见突出。"),
    (Kind.NEGATION, "red", "黄韧带未见钙化。颈4-6水平后纵韧带钙化。", "后纵韧带未见钙化。"),
    # level
    (Kind.LEVEL, "red", "腰4/5椎间盘突出。", "腰3/4椎间盘突出。"),
    (Kind.LEVEL, "red", "腰4/5椎间盘突出。", "腰4椎体突出。"),
    (Kind.LEVEL, "red", "T11椎体楔形变。", "T12椎体压缩性骨折。"),
    (Kind.LEVEL, "red", "腰3/4椎间盘膨出，腰4/5椎间盘突出。", "腰3/4椎间盘突出。"),
    (Kind.LEVEL, "red", "肝S5段见囊性灶。", "肝S7段囊肿。"),
    (Kind.LEVEL, "red", "右侧第6肋骨骨折。", "右侧第7肋骨骨折。"),
    (Kind.LEVEL, "red", "右肺上叶见结节。", "右肺下叶结节。"),
    (Kind.LEVEL, "red", "左侧额叶见出血灶。", "左侧颞叶出血。"),
    (Kind.LEVEL, "red", "右侧输尿管上段结石。", "右侧输尿管下段结石。"),
    (Kind.LEVEL, "red", "右膝内侧半月板撕裂。", "右膝外侧半月板撕裂。"),
    (Kind.LEVEL, "amber", "腰2/3-腰5/骶1椎间盘突出。", "腰3/4-腰5/骶1椎间盘突出。"),
    (Kind.LEVEL, "amber", "腰3-5椎体后缘呈阶梯样改变。", "腰4-5椎体节段性不稳。"),
    (Kind.LEVEL, "amber", "颈3/4、颈4/5、颈5/6椎间盘膨出。", "颈4/5、颈5/6椎间盘膨出。"),
    (Kind.LEVEL, "red", "胸12椎体变扁，骨皮质中断。腰2、3椎体内见片状高信号。", "腰2椎体骨折。"),
    (Kind.LEVEL, "red", "腰1椎体变扁。腰3椎体左侧横突见片状高信号。", "腰1椎体左侧横突骨折。"),
    (Kind.LEVEL, "red", "腰4、5椎体相对缘见片状高信号。腰1椎体见片状高信号。", "腰1、2椎体终板炎。"),
    (Kind.LEVEL, "red", "左膝外侧半月板后角见条状高信号。", "左膝外侧半月板前角撕裂。"),
    (Kind.LEVEL, "red", "左前降支远段心肌桥。", "左前降支近段心肌桥。"),
    (Kind.LEVEL, "red", "食管中段管壁增厚。", "食管下段管壁增厚。"),
    (Kind.LEVEL, "red", "胃窦壁不规则增厚。", "胃体癌可能。"),
    (Kind.LEVEL, "red", "左侧肱骨近端骨皮质断裂。", "左侧肱骨远端骨折。"),
    (Kind.LEVEL, "red", "左肺下叶术后。", "左肺上叶术后改变。"),
    (Kind.LEVEL, "red", "两肺多发结节，大者位于右肺上叶。", "右肺下叶结节。"),
    # count
    (Kind.COUNT, "amber", "肝内单发囊肿。", "肝内多发囊肿。"),
    (Kind.COUNT, "amber", "两肺多发结节。", "两肺单发结节。"),
    (Kind.COUNT, "amber", "肝内3枚囊肿。", "肝内5枚囊肿。"),
    (Kind.COUNT, "amber", "双侧放射冠见斑点状低密度影。", "脑内单发腔隙灶。"),
    (Kind.COUNT, "amber", "两肺见多发片絮状模糊密度增高影。", "两肺单发渗出。"),
    (Kind.COUNT, "amber", "两肺散在斑片状高密度影。", "两肺单发渗出。"),
    # prior
    (Kind.PRIOR, "amber", "右肺结节。", "右肺结节，同前。"),
    (Kind.PRIOR, "red", "右肺结节。", "右肺结节，较前增大。"),
    (Kind.PRIOR, "red", "右肺结节。", "右肺结节，与2021-03-04片比较大致相仿。"),
    (Kind.PRIOR, "red", "右肺结节。", "右肺新发结节。"),
    (Kind.PRIOR, "amber", "右肺渗出影。", "肺炎复查，右肺渗出。"),
    # region
    (Kind.BODY_PART, "amber", "两肺纹理清晰，右肺上叶结节。", "右肺上叶结节；左侧股骨颈骨折。"),
    (Kind.UNSUPPORTED, "amber", "两肺纹理清晰，右肺上叶结节。", "右肺上叶结节；左侧股骨颈骨折。"),
    (Kind.UNSUPPORTED, "amber", "肝内囊性灶，双肾未见异常。", "肝囊肿；左肾结石。"),
    # omission and critical findings
    (Kind.OMITTED, "amber", "右肺上叶见结节。左侧输尿管结石伴肾盂积水。", "右肺上叶结节；左侧输尿管结石。"),
    (Kind.OMITTED, "amber", "右肺上叶结节。肝右叶肿块。", "右肺上叶结节。"),
    (Kind.CRITICAL, "red", "右侧气胸，左肺结节。", "左肺结节。"),
    (Kind.CRITICAL, "red", "膈下见新月形游离气体。肝囊肿。", "肝囊肿。"),
    (Kind.CRITICAL, "red", "主动脉见内膜片及真假腔。两肺结节。", "两肺结节。"),
    (Kind.CRITICAL, "red", "右肺动脉主干内见充盈缺损。右肺结节。", "右肺结节。"),
    (Kind.CRITICAL, "red", "左侧颅板下新月形高密度影，中线结构右移。脑萎缩。", "脑萎缩。"),
    (Kind.CRITICAL, "red", "右侧气胸。", "右侧胸腔未见气胸。"),
]


@pytest.mark.parametrize(("kind", "severity", "findings", "impression"), FLAGGED)
def test_an_unfaithful_impression_is_flagged(kind: Kind, severity: str, findings: str, impression: str) -> None:
    found = loud(findings, impression)
    assert (kind, severity) in [(issue.kind, issue.severity.value) for issue in found], [i.message for i in found]


@pytest.mark.parametrize(
    ("findings", "impression", "sex", "flagged"),
    [
        ("右肾囊肿。", "右肾囊肿；前列腺增生。", "F", True),
        ("右肾囊肿。", "右肾囊肿；子宫肌瘤。", "M", True),
        ("前列腺体积增大。", "子宫肌瘤。", None, True),
        ("子宫前壁结节。", "子宫肌瘤。", "F", False),
        ("右肾囊肿。", "右肾囊肿；子宫肌瘤。", None, False),
        ("腰椎椎体及附件骨质增生。", "腰椎椎体及附件退变。", "M", False),
    ],
)
def test_an_organ_the_patient_does_not_have_is_flagged(
    findings: str, impression: str, sex: str | None, flagged: bool
) -> None:
    issues = [issue for issue in loud(findings, impression, sex=sex) if issue.kind is Kind.SEX_ORGAN]
    assert bool(issues) is flagged
    assert all(issue.severity is Severity.RED for issue in issues)


@pytest.mark.parametrize(
    ("modality", "impression", "flagged"),
    [
        ("CT", "右肾T2WI高信号灶。", True),
        ("MR", "右肾低密度灶，CT值约10HU。", True),
        ("XR", "右肾区弥散受限。", True),
        ("MR", "右肾囊肿，必要时CT平扫。", False),
        ("CT", "右肾囊肿，必要时MR检查。", False),
    ],
)
def test_words_of_another_modality_are_flagged(modality: str, impression: str, flagged: bool) -> None:
    issues = [i for i in loud("右肾类圆形影。", impression, modality=modality) if i.kind is Kind.BODY_PART]
    assert bool(issues) is flagged


def test_a_change_that_is_named_is_no_abnormality_of_normal_findings() -> None:
    found = loud("左侧蝶窦含气消失。右侧蝶窦未见异常。", "左侧蝶窦炎性改变。")
    assert Kind.NEGATION not in {issue.kind for issue in found}


@pytest.mark.parametrize(
    ("findings", "impression"),
    [
        ("Masse rénale droite.", "Masse rénale gauche."),
        ("Kyste du rein gauche.", "Kyste du rein droit."),
        ("Épanchement pleural droit.", "Épanchement pleural gauche."),
        ("Masse vésicale latérale gauche.", "Masse vésicale latérale droite."),
    ],
)
def test_a_french_side_behind_its_structure_is_read(findings: str, impression: str) -> None:
    assert not loud(findings, findings, language="fr")
    assert any(i.kind is Kind.SIDE for i in loud(findings, impression, language="fr"))


def test_a_stored_prior_or_a_comparison_in_the_findings_supports_one_in_the_impression() -> None:
    impression = "右肺结节，较前增大。"
    assert [i for i in loud("右肺结节。", impression) if i.kind is Kind.PRIOR]
    assert not [i for i in loud("右肺结节。", impression, prior="右肺结节。") if i.kind is Kind.PRIOR]
    assert not [i for i in loud("右肺结节，较前片增大。", impression) if i.kind is Kind.PRIOR]


def test_a_critical_finding_that_the_impression_has_is_only_information() -> None:
    issues = [i for i in check(Pair("右侧气胸，压缩约30%。", "右侧气胸。")) if i.kind is Kind.CRITICAL]
    assert [issue.severity for issue in issues] == [Severity.INFO]
    assert issues[0].span_impression is not None


@pytest.mark.parametrize(
    "findings", ["主动脉夹层术后。", "未见气胸。", "陈旧性脑出血，遗留软化灶。", "膈下未见游离气体。"]
)
def test_a_treated_old_or_absent_condition_is_not_critical(findings: str) -> None:
    assert not [issue for issue in check(Pair(findings, "请对照。右肺结节。")) if issue.kind is Kind.CRITICAL]


def test_an_issue_quotes_and_points_at_both_texts_as_given() -> None:
    findings, impression = "兩肺紋理清晰。右肺上葉見　結節，大小 5X4mm。", "1、左肺上葉結節，大小5X4mm。"
    issue = next(i for i in check(Pair(findings, impression, language="zh-Hant")) if i.kind is Kind.SIDE)
    assert issue.span_findings is not None
    assert issue.span_impression is not None
    assert findings[slice(*issue.span_findings)] == "右肺上葉"
    assert impression[slice(*issue.span_impression)] == "左肺上葉"
    assert issue.as_json() == {
        "kind": "side",
        "severity": "red",
        "span_findings": list(issue.span_findings),
        "span_impression": list(issue.span_impression),
        "message": "意見寫“左肺上葉”，所見對應的是右側（“右肺上葉”）",
        "rule": "side.contradiction",
    }


def test_an_english_reader_gets_english_sentences() -> None:
    issues = loud("Solid nodule in the right upper lobe, 6 mm.", "Nodule in the left upper lobe.", language="en")
    assert {issue.kind for issue in issues} >= {Kind.SIDE}
    assert all(issue.message.isascii() or "“" in issue.message for issue in issues)
    assert not any("\u4e00" <= c <= "\u9fff" for issue in issues for c in issue.message)


REWRITES = [
    ("0.6cm", "6mm"),
    ("双侧", "两侧"),
    ("腰4/5", "L4/5"),
    ("；", "。"),
    ("，", ","),
    ("1、", "1."),
    ("×", "X"),
    ("胸腔", "胸腔 "),
]


@pytest.mark.parametrize(("one", "other"), REWRITES)
@pytest.mark.parametrize("side", ["右", "左"])
def test_rewriting_the_notation_never_changes_the_verdict(one: str, other: str, side: str) -> None:
    findings = "右肺上叶结节，大小约0.6cm×0.4cm。双侧胸腔积液，腰4/5椎间盘突出。"
    impression = f"1、{side}肺上叶结节，大小约0.6cm×0.4cm；双侧胸腔积液，腰4/5椎间盘突出。"
    before = {(issue.kind, issue.severity) for issue in check(Pair(findings, impression))}
    assert before == {(issue.kind, issue.severity) for issue in check(Pair(findings, impression.replace(one, other)))}
    assert before == {(issue.kind, issue.severity) for issue in check(Pair(findings.replace(one, other), impression))}


def test_every_kind_has_a_check_and_the_version_names_them() -> None:
    assert {name for name, _ in CHECKS} == {kind.value for kind in Kind}
    assert version().startswith("c")


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=200), st.text(max_size=120), st.sampled_from(["zh-Hans", "zh-Hant", "en", "fr", "xx"]))
def test_any_two_texts_can_be_checked(findings: str, impression: str, language: str) -> None:
    for issue in check(Pair(findings, impression, language=language)):
        for span, text in ((issue.span_findings, findings), (issue.span_impression, impression)):
            assert span is None or 0 <= span[0] <= span[1] <= len(text)


_PIECES = st.lists(
    st.sampled_from(
        (
            *(
                "左侧",
                "右肺",
                "双肾",
                "上叶",
                "结节",
                "积液",
                "未见",
                "，",
                "。",
                "；",
                "、",
                "\n",
                "1、",
                "腰4/5",
                "T11",
                "5×4mm",
            ),
            *(
                "0.6cm",
                "考虑",
                "可能",
                "待排",
                "多发",
                "单发",
                "较前增大",
                "请结合临床",
                "子宫",
                "前列腺",
                "Se5",
                "Im3",
                "（",
            ),
            *(
                "）",
                "：",
                "L",
                "4",
                "-",
                "/",
                "S8段",
                "第8肋",
                "%",
                "肝",
                "囊肿",
                "骨折",
                "中线",
                "气胸",
                "?",
                "【",
                "】",
            ),
            *("<b>", "&nbsp;", "\ud83d", "\u202e"),
        )
    ),
    max_size=60,
).map("".join)


@settings(max_examples=150, deadline=None)
@given(_PIECES, _PIECES)
def test_any_jumble_of_report_words_can_be_checked(findings: str, impression: str) -> None:
    for issue in check(Pair(findings, impression)):
        for span, text in ((issue.span_findings, findings), (issue.span_impression, impression)):
            assert span is None or 0 <= span[0] <= span[1] <= len(text)


@pytest.mark.parametrize(
    "piece",
    ["1", " ", "\n", "(", "左", "，", "姓名：", "密度", "腰4/5、", "1×", "L4-", "电话", "第1、", "示：", "&", "<"],
)
def test_no_text_makes_a_rule_run_away(piece: str) -> None:
    text = piece * (8000 // len(piece))
    started = time.process_time()
    check(Pair(text, text[:1000]))
    clean(text)
    deidentify(text)
    with contextlib.suppress(NoBorder):
        split_sections(text)
    assert time.process_time() - started < 4


def test_a_report_is_checked_within_milliseconds_and_a_long_one_in_proportion() -> None:
    findings = "".join(text for text, _ in PASSES[:24])[:400]
    impression = "".join(text for _, text in PASSES[:24])[:150]
    check(Pair(findings, impression))
    started = time.process_time()
    for _ in range(20):
        check(Pair(findings, impression))
    assert (time.process_time() - started) / 20 < 0.03
    started = time.process_time()
    check(Pair("".join(text for text, _ in PASSES) * 20, impression))
    assert time.process_time() - started < 5
