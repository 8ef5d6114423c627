"""The benchmarks this package knows by name: where their files are, what these hold, and how subjects are grouped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Subject:
    """One exam subject.

    Attributes:
        name: As in file and score names.
        chinese: For people, and for the prompt.
        group: The group it counts towards; "" for none.
    """

    name: str
    english: str
    chinese: str
    group: str


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A benchmark: where its files are, what they hold, and how its subjects are grouped.

    Attributes:
        name: As in score names ("ceval").
        title: For people ("C-Eval").
        hub: The dataset on the Hugging Face Hub ("ceval/ceval-exam").
        modelscope: The dataset on ModelScope ("opencompass/ceval-exam").
        archive: Name of the .zip with the CSV files, the same on both ("ceval-exam.zip").
        splits: ("dev", "val", "test").
        main_split: The split whose scores have the benchmark's plain name; other splits' scores include the split.
        secret_splits: Splits published without answers; there an answer may be empty.
        file_name: Template of a CSV file's path in a directory or .zip ("{split}/{subject}_{split}.csv").
        columns: The required columns, by the names they have in a row. Must include id, question and answer.
        renames: Name in the file -> name in a row, where they differ.
        optional: Columns that may be missing, and the cell they then have. A missing ``answer`` is still an error
            unless the split's answers are secret.
        answers: What an answer may be ("A", "B", "C", "D").
        prompt_columns: The columns a prompt can use, in the order they are filled in.
        subjects: In the order they are asked and shown.
        groups: Subject names by group, in the order they are shown. The group of all subjects, which has the
            benchmark's own name, is not listed.
    """

    name: str
    title: str
    hub: str
    modelscope: str
    archive: str
    splits: tuple[str, ...]
    main_split: str
    secret_splits: frozenset[str]
    file_name: str
    columns: tuple[str, ...]
    renames: Mapping[str, str]
    optional: Mapping[str, str]
    answers: frozenset[str]
    prompt_columns: tuple[str, ...]
    subjects: tuple[Subject, ...]
    groups: Mapping[str, tuple[str, ...]]

    def file_names(self, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
        """The CSV file of every pair of subject and split."""
        return {(subject, split): self.file_name.format(subject=subject, split=split) for subject, split in wanted}

    def score_prefix(self, split: str, scores: str) -> str:
        """What the score names of a split begin with, where those of the main split begin with ``scores``."""
        return scores if split == self.main_split else f"{scores}-{split}"


def grouped(subjects: Sequence[Subject], *groups: str) -> dict[str, tuple[str, ...]]:
    """Subject names by group, the groups in this order."""
    return {group: tuple(subject.name for subject in subjects if subject.group == group) for group in groups}


# Names, order and groups as in OpenCompass 0.3.3 (configs/datasets/ceval, configs/summarizers/groups/ceval.py).
_CEVAL_SUBJECTS = (
    Subject("computer_network", "Computer Network", "计算机网络", "stem"),
    Subject("operating_system", "Operating System", "操作系统", "stem"),
    Subject("computer_architecture", "Computer Architecture", "计算机组成", "stem"),
    Subject("college_programming", "College Programming", "大学编程", "stem"),
    Subject("college_physics", "College Physics", "大学物理", "stem"),
    Subject("college_chemistry", "College Chemistry", "大学化学", "stem"),
    Subject("advanced_mathematics", "Advanced Mathematics", "高等数学", "stem"),
    Subject("probability_and_statistics", "Probability and Statistics", "概率统计", "stem"),
    Subject("discrete_mathematics", "Discrete Mathematics", "离散数学", "stem"),
    Subject("electrical_engineer", "Electrical Engineer", "注册电气工程师", "stem"),
    Subject("metrology_engineer", "Metrology Engineer", "注册计量师", "stem"),
    Subject("high_school_mathematics", "High School Mathematics", "高中数学", "stem"),
    Subject("high_school_physics", "High School Physics", "高中物理", "stem"),
    Subject("high_school_chemistry", "High School Chemistry", "高中化学", "stem"),
    Subject("high_school_biology", "High School Biology", "高中生物", "stem"),
    Subject("middle_school_mathematics", "Middle School Mathematics", "初中数学", "stem"),
    Subject("middle_school_biology", "Middle School Biology", "初中生物", "stem"),
    Subject("middle_school_physics", "Middle School Physics", "初中物理", "stem"),
    Subject("middle_school_chemistry", "Middle School Chemistry", "初中化学", "stem"),
    Subject("veterinary_medicine", "Veterinary Medicine", "兽医学", "stem"),
    Subject("college_economics", "College Economics", "大学经济学", "social-science"),
    Subject("business_administration", "Business Administration", "工商管理", "social-science"),
    Subject("marxism", "Marxism", "马克思主义基本原理", "social-science"),
    Subject("mao_zedong_thought", "Mao Zedong Thought", "毛泽东思想和中国特色社会主义理论体系概论", "social-science"),
    Subject("education_science", "Education Science", "教育学", "social-science"),
    Subject("teacher_qualification", "Teacher Qualification", "教师资格", "social-science"),
    Subject("high_school_politics", "High School Politics", "高中政治", "social-science"),
    Subject("high_school_geography", "High School Geography", "高中地理", "social-science"),
    Subject("middle_school_politics", "Middle School Politics", "初中政治", "social-science"),
    Subject("middle_school_geography", "Middle School Geography", "初中地理", "social-science"),
    Subject("modern_chinese_history", "Modern Chinese History", "近代史纲要", "humanities"),
    Subject(
        "ideological_and_moral_cultivation", "Ideological and Moral Cultivation", "思想道德修养与法律基础", "humanities"
    ),
    Subject("logic", "Logic", "逻辑学", "humanities"),
    Subject("law", "Law", "法学", "humanities"),
    Subject("chinese_language_and_literature", "Chinese Language and Literature", "中国语言文学", "humanities"),
    Subject("art_studies", "Art Studies", "艺术学", "humanities"),
    Subject("professional_tour_guide", "Professional Tour Guide", "导游资格", "humanities"),
    Subject("legal_professional", "Legal Professional", "法律职业资格", "humanities"),
    Subject("high_school_chinese", "High School Chinese", "高中语文", "humanities"),
    Subject("high_school_history", "High School History", "高中历史", "humanities"),
    Subject("middle_school_history", "Middle School History", "初中历史", "humanities"),
    Subject("civil_servant", "Civil Servant", "公务员", "other"),
    Subject("sports_science", "Sports Science", "体育学", "other"),
    Subject("plant_protection", "Plant Protection", "植物保护", "other"),
    Subject("basic_medicine", "Basic Medicine", "基础医学", "other"),
    Subject("clinical_medicine", "Clinical Medicine", "临床医学", "other"),
    Subject("urban_and_rural_planner", "Urban and Rural Planner", "注册城乡规划师", "other"),
    Subject("accountant", "Accountant", "注册会计师", "other"),
    Subject("fire_engineer", "Fire Engineer", "注册消防工程师", "other"),
    Subject(
        "environmental_impact_assessment_engineer",
        "Environmental Impact Assessment Engineer",
        "环境影响评价工程师",
        "other",
    ),
    Subject("tax_accountant", "Tax Accountant", "税务师", "other"),
    Subject("physician", "Physician", "医师资格", "other"),
)

_CEVAL_HARD = (
    "advanced_mathematics",
    "discrete_mathematics",
    "probability_and_statistics",
    "college_chemistry",
    "college_physics",
    "high_school_mathematics",
    "high_school_chemistry",
    "high_school_physics",
)

CEVAL = Benchmark(
    name="ceval",
    title="C-Eval",
    hub="ceval/ceval-exam",
    modelscope="opencompass/ceval-exam",
    archive="ceval-exam.zip",
    splits=("dev", "val", "test"),
    main_split="val",
    secret_splits=frozenset({"test"}),
    file_name="{split}/{subject}_{split}.csv",
    columns=("id", "question", "A", "B", "C", "D", "answer"),
    renames={},
    optional={"explanation": "", "answer": ""},
    answers=frozenset("ABCD"),
    prompt_columns=("id", "question", "A", "B", "C", "D", "answer", "explanation"),
    subjects=_CEVAL_SUBJECTS,
    groups=grouped(_CEVAL_SUBJECTS, "stem", "social-science", "humanities", "other") | {"hard": _CEVAL_HARD},
)
"""C-Eval (Huang et al., 2023): 52 subjects of Chinese exams in four groups, and a hard subset."""

# Names, order and groups as in OpenCompass 0.3.3 (configs/datasets/cmmlu, configs/summarizers/groups/cmmlu.py).
_CMMLU_SUBJECTS = (
    Subject("agronomy", "Agronomy", "农学", "other"),
    Subject("anatomy", "Anatomy", "解剖学", "stem"),
    Subject("ancient_chinese", "Ancient Chinese", "古汉语", "social-science"),
    Subject("arts", "Arts", "艺术学", "humanities"),
    Subject("astronomy", "Astronomy", "天文学", "stem"),
    Subject("business_ethics", "Business Ethics", "商业伦理", "social-science"),
    Subject("chinese_civil_service_exam", "Chinese Civil Service Exam", "中国公务员考试", "social-science"),
    Subject("chinese_driving_rule", "Chinese Driving Rule", "中国驾驶规则", "other"),
    Subject("chinese_food_culture", "Chinese Food Culture", "中国饮食文化", "social-science"),
    Subject("chinese_foreign_policy", "Chinese Foreign Policy", "中国外交政策", "social-science"),
    Subject("chinese_history", "Chinese History", "中国历史", "humanities"),
    Subject("chinese_literature", "Chinese Literature", "中国文学", "humanities"),
    Subject("chinese_teacher_qualification", "Chinese Teacher Qualification", "中国教师资格", "social-science"),
    Subject("clinical_knowledge", "Clinical Knowledge", "临床知识", "other"),
    Subject("college_actuarial_science", "College Actuarial Science", "大学精算学", "stem"),
    Subject("college_education", "College Education", "大学教育学", "social-science"),
    Subject("college_engineering_hydrology", "College Engineering Hydrology", "大学工程水文学", "stem"),
    Subject("college_law", "College Law", "大学法律", "humanities"),
    Subject("college_mathematics", "College Mathematics", "大学数学", "stem"),
    Subject("college_medical_statistics", "College Medical Statistics", "大学医学统计", "stem"),
    Subject("college_medicine", "College Medicine", "大学医学", "other"),
    Subject("computer_science", "Computer Science", "计算机科学", "stem"),
    Subject("computer_security", "Computer Security", "计算机安全", "other"),
    Subject("conceptual_physics", "Conceptual Physics", "概念物理学", "stem"),
    Subject("construction_project_management", "Construction Project Management", "建设工程管理", "other"),
    Subject("economics", "Economics", "经济学", "social-science"),
    Subject("education", "Education", "教育学", "social-science"),
    Subject("electrical_engineering", "Electrical Engineering", "电气工程", "stem"),
    Subject("elementary_chinese", "Elementary Chinese", "小学语文", "social-science"),
    Subject("elementary_commonsense", "Elementary Commonsense", "小学常识", "other"),
    Subject("elementary_information_and_technology", "Elementary Information and Technology", "小学信息技术", "other"),
    Subject("elementary_mathematics", "Elementary Mathematics", "初等数学", "stem"),
    Subject("ethnology", "Ethnology", "民族学", "social-science"),
    Subject("food_science", "Food Science", "食品科学", "other"),
    Subject("genetics", "Genetics", "遗传学", "stem"),
    Subject("global_facts", "Global Facts", "全球事实", "humanities"),
    Subject("high_school_biology", "High School Biology", "高中生物", "stem"),
    Subject("high_school_chemistry", "High School Chemistry", "高中化学", "stem"),
    Subject("high_school_geography", "High School Geography", "高中地理", "social-science"),
    Subject("high_school_mathematics", "High School Mathematics", "高中数学", "stem"),
    Subject("high_school_physics", "High School Physics", "高中物理学", "stem"),
    Subject("high_school_politics", "High School Politics", "高中政治", "social-science"),
    Subject("human_sexuality", "Human Sexuality", "人类性行为", "other"),
    Subject("international_law", "International Law", "国际法学", "humanities"),
    Subject("journalism", "Journalism", "新闻学", "social-science"),
    Subject("jurisprudence", "Jurisprudence", "法理学", "humanities"),
    Subject("legal_and_moral_basis", "Legal and Moral Basis", "法律与道德基础", "other"),
    Subject("logical", "Logical", "逻辑学", "humanities"),
    Subject("machine_learning", "Machine Learning", "机器学习", "stem"),
    Subject("management", "Management", "管理学", "social-science"),
    Subject("marketing", "Marketing", "市场营销", "social-science"),
    Subject("marxist_theory", "Marxist Theory", "马克思主义理论", "humanities"),
    Subject("modern_chinese", "Modern Chinese", "现代汉语", "social-science"),
    Subject("nutrition", "Nutrition", "营养学", "other"),
    Subject("philosophy", "Philosophy", "哲学", "humanities"),
    Subject("professional_accounting", "Professional Accounting", "专业会计", "social-science"),
    Subject("professional_law", "Professional Law", "专业法学", "humanities"),
    Subject("professional_medicine", "Professional Medicine", "专业医学", "other"),
    Subject("professional_psychology", "Professional Psychology", "专业心理学", "social-science"),
    Subject("public_relations", "Public Relations", "公共关系", "social-science"),
    Subject("security_study", "Security Study", "安全研究", "social-science"),
    Subject("sociology", "Sociology", "社会学", "social-science"),
    Subject("sports_science", "Sports Science", "体育学", "other"),
    Subject("traditional_chinese_medicine", "Traditional Chinese Medicine", "中医中药", "other"),
    Subject("virology", "Virology", "病毒学", "stem"),
    Subject("world_history", "World History", "世界历史", "humanities"),
    Subject("world_religions", "World Religions", "世界宗教", "humanities"),
)

_CHINA_SPECIFIC = (
    "ancient_chinese",
    "chinese_civil_service_exam",
    "chinese_driving_rule",
    "chinese_food_culture",
    "chinese_foreign_policy",
    "chinese_history",
    "chinese_literature",
    "chinese_teacher_qualification",
    "construction_project_management",
    "elementary_chinese",
    "elementary_commonsense",
    "ethnology",
    "high_school_politics",
    "modern_chinese",
    "traditional_chinese_medicine",
)

CMMLU = Benchmark(
    name="cmmlu",
    title="CMMLU",
    hub="haonan-li/cmmlu",
    modelscope="opencompass/cmmlu",
    archive="cmmlu_v1_0_1.zip",
    splits=("dev", "test"),
    main_split="test",
    secret_splits=frozenset(),
    file_name="{split}/{subject}.csv",
    columns=("id", "question", "A", "B", "C", "D", "answer"),
    renames={"": "id", "Question": "question", "Answer": "answer"},
    optional={},
    answers=frozenset("ABCD"),
    prompt_columns=("question", "A", "B", "C", "D", "answer"),  # OpenCompass leaves the row's number out
    subjects=_CMMLU_SUBJECTS,
    groups=grouped(_CMMLU_SUBJECTS, "humanities", "stem", "social-science", "other")
    | {"china-specific": _CHINA_SPECIFIC},
)
"""CMMLU (Li et al., 2023): 67 subjects of Chinese exams in four groups, and a China-specific subset."""

BENCHMARKS: Mapping[str, Benchmark] = {benchmark.name: benchmark for benchmark in (CEVAL, CMMLU)}
