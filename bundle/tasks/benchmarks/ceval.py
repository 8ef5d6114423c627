"""C-Eval (Huang et al., 2023): 52 subjects of Chinese exams in four groups, and the hard ones among them."""

from bundle.tasks.benchmarks.known_benchmark import KnownBenchmark
from bundle.tasks.sources import Benchmark
from bundle.tasks.subjects import Subject

# Names, order and groups as in OpenCompass 0.3.3 (configs/datasets/ceval, configs/summarizers/groups/ceval.py).
_SUBJECTS = (
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

_HARD = (
    "advanced_mathematics",
    "discrete_mathematics",
    "probability_and_statistics",
    "college_chemistry",
    "college_physics",
    "high_school_mathematics",
    "high_school_chemistry",
    "high_school_physics",
)

CEVAL = KnownBenchmark(
    files=Benchmark(
        name="ceval",
        hub="ceval/ceval-exam",
        modelscope="opencompass/ceval-exam",
        archive="ceval-exam.zip",
        splits=("dev", "val", "test"),
        file_name="{split}/{subject}_{split}.csv",
        columns=("id", "question", "A", "B", "C", "D", "answer"),
        renames={},
        optional={"explanation": "", "answer": ""},
        answers=frozenset("ABCD"),
        secret_splits=frozenset({"test"}),
    ),
    main_split="val",
    prompt_columns=("id", "question", "A", "B", "C", "D", "answer", "explanation"),
    subjects=_SUBJECTS,
    groups={
        group: tuple(subject.name for subject in _SUBJECTS if subject.group == group)
        for group in ("stem", "social-science", "humanities", "other")
    }
    | {"hard": _HARD},
)
