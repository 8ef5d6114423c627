"""The sentencepiece model of a made checkpoint: a small trained vocabulary, filled up to the size asked for."""

import io

from bundle.checkpoints.internlm2.sentencepiece_model import Piece, PieceType, filler_pieces

# Original sentences in the shapes that evaluation prompts have; what is trained from them are common words, so that
# a prompt has about as many tokens as it has characters, and often fewer.
_TEXT = """\
以下是中国关于计算机网络考试的单项选择题，请选出其中的正确答案。
以下是中国关于高等数学考试的单项选择题，请选出其中的正确答案。
以下是中国关于初中历史考试的单项选择题，请选出其中的正确答案。
以下是中国关于基础医学考试的单项选择题，请选出其中的正确答案。
以下是中国关于法律职业资格考试的单项选择题，请选出其中的正确答案。
以下是关于中国文学的单项选择题，请直接给出正确答案的选项。
下列说法中正确的是____。下列选项中不正确的是____。下列关于细胞的叙述，错误的是
下列哪一项属于可再生能源？下面哪个城市是这个省的省会？这句话的意思是什么？
设函数在区间上连续，则下列等式成立的是。若矩阵可逆，则它的行列式不等于零。
答案: A 答案: B 答案: C 答案: D 答案是 正确答案 题目 问题 选项 解析
春天来了，河边的柳树发出了新芽，孩子们在草地上放风筝。
我们每天早上七点起床，八点去学校，下午五点回家。
水在标准大气压下的沸点是一百摄氏度，冰点是零摄氏度。
经济增长、社会发展、科学技术、教育改革、环境保护、人民生活。
马克思主义基本原理、毛泽东思想、中国特色社会主义、近代史纲要。
大学物理、大学化学、高中生物、初中地理、离散数学、概率统计、操作系统、计算机组成。
工商管理、税务师、会计、教师资格、公务员、注册电气工程师、临床医学、兽医学、植物保护。
因为天气很好，所以他们决定去公园；如果下雨，他们就在家里看书。
中华人民共和国成立于一九四九年。地球绕太阳公转一周的时间大约是一年。
一个物体在没有外力作用时，保持静止或匀速直线运动的状态。
The answer is A. The correct answer is B. Which of the following statements is true?
the of and to in is that for on with as it by this are from be at not which have one
There are four options below; choose the one that best completes the sentence.
In computer science, an algorithm is a finite sequence of instructions for solving a problem.
water energy time number function system program language question answer option
user assistant system content role message name value true false none
    return x  for i in range(n):        print(i)  if a == b:  def main():
0 1 2 3 4 5 6 7 8 9 10 11 12 20 25 50 100 1000 1949 1978 2000 2024 0.10 0.5 3.14
A B C D E F G H x y z f(x) = ax + b, sin x, cos x, log x, m/s, kg, cm
"""
_PUNCTUATION = "，。、；：？！“”‘’（）《》〈〉【】〔〕［］｛｝—…·～￥％＋－×÷＝≠≤≥±°℃αβγδεθλμπρσφωΔΣΩ∞√∫∑∈∪∩→①②③④"
TRAINED_PIECES = 4608
SPARE_PIECES = 147  # InternLM2's own vocabulary ends with as many


def make_vocabulary(size: int) -> bytes:
    """A sentencepiece BPE model file with ``size`` pieces, at least ``TRAINED_PIECES + SPARE_PIECES``.

    It has what InternLM2's has: byte fallback, no dummy prefix, text taken as it is, ``<unk>``, ``<s>`` and ``</s>``
    at 0, 1 and 2, and pieces called ``[UNUSED_TOKEN_n]`` at the end, which no text becomes. All printable ASCII and
    the 3,755 most common Chinese characters are pieces.
    """
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_TEXT.splitlines()),
        model_writer=model,
        model_type="bpe",
        vocab_size=TRAINED_PIECES,
        required_chars=_PUNCTUATION + _ascii() + _common_characters(),
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        character_coverage=1.0,
        num_threads=1,
        minloglevel=2,
    )
    spare = (
        Piece(f"[UNUSED_TOKEN_{n}]", float(-TRAINED_PIECES - n), PieceType.NORMAL) for n in range(size - TRAINED_PIECES)
    )
    return model.getvalue() + filler_pieces(spare)


def _ascii() -> str:
    return "".join(map(chr, range(0x21, 0x7F)))


def _common_characters() -> str:
    """GB 2312's first level: the characters for everyday use, rows 16 to 55 of its table."""
    return bytes(
        byte for row in range(0xB0, 0xD8) for cell in range(0xA1, 0xFF if row < 0xD7 else 0xFA) for byte in (row, cell)
    ).decode("gb2312")
