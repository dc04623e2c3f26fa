"""A table goes into models.toml or out of it, and every other character stays."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfumato.models.model import CannotChange
from sfumato.models.toml_text import tables, with_path, with_table, without_table

ODD = '''# ours
[models.first]   # the first one
batch = 2
# about its rules
[models.first.rules]
shapes = [
  [512, 512],   # ] [models.no]
  [640, 448],
]

# about the second
[ models . "a b/c" ]
summary = """
[models.third]
path = "no" # ""\\"
"""""
path = 'weights\\x'   # here

  [[models."a b/c".loras]]
  path = "one.safetensors"

  [[models.'a b/c'.loras]]
  path = "two.safetensors"

# about the third
["models".third]
output_filter = QQQa''QQQ # not [closed
'''.replace("QQQ", "'" * 3)


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("first", ODD[ODD.index("[models.first]") : ODD.index("# about the second")]),
        ("a b/c", ODD[ODD.index("[ models .") : ODD.index("# about the third")]),
        ("third", ODD[ODD.index('["models".third]') :]),
    ],
)
def test_table_is_taken_out_with_those_below_it_and_nothing_else(name: str, gone: str) -> None:
    fresh = without_table(ODD, name)

    assert fresh.split() == ODD.replace(gone, "").split()
    assert set(tables(fresh)) == set(tables(ODD)) - {name}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("[models.a]", ""),
        ("# ours\n\n[models.a]\nbatch = 1\n", "# ours\n\n"),
        ("[models.a]\r\nbatch = 1\r\n\r\n[models.b]\r\n", "[models.b]\r\n"),
        ("[models.a]\n[models.b]\nbatch = 1\n[models.a.rules]\nstrength = 1\n", "[models.b]\nbatch = 1\n"),
        ("[models]\na.batch = 1\nb.batch = 2\na.rules.strength = 1\n", "[models]\nb.batch = 2\n"),
        ("models.a.batch = 1\nmodels.b.batch = 1\n", "models.b.batch = 1\n"),
        ("[models]\na = {batch = 1}\nb = { }\n", "[models]\nb = { }\n"),
        ("[models.b]\n\n[models.a]\n\n[models.c]\n", "[models.b]\n\n[models.c]\n"),
        ("[models.'a.b']\n[models.a]\n[models.aa]\n", "[models.'a.b']\n[models.aa]\n"),
    ],
)
def test_table_is_taken_out_however_it_is_written(text: str, left: str) -> None:
    assert without_table(text, "a") == left


def test_comment_between_two_tables_stays_with_the_next() -> None:
    assert without_table("[models.a]\n# about b\n[models.b]\n", "a") == "# about b\n[models.b]\n"


@pytest.mark.parametrize("text", ["models = { a = {}, b = {} }\n", "models = {}\n"])
def test_what_can_only_be_changed_by_hand_is_left(text: str) -> None:
    with pytest.raises(CannotChange, match="by hand"):
        without_table(text, "a") if "a =" in text else with_table(text, "a", {})


@pytest.mark.parametrize("text", ["[models.a", "models = 3", "[[models]]"])
def test_what_is_no_list_of_tables_is_told(text: str) -> None:
    with pytest.raises(CannotChange):
        tables(text)


@pytest.mark.parametrize(("text", "gap"), [("", ""), ("# ours\n", "\n"), ("[models.b]", "\n\n"), ("\n", "")])
def test_new_table_comes_last_behind_an_empty_line(text: str, gap: str) -> None:
    fresh = with_table(text, "a", {"path": 'x"\\y\x7f', "hub": "o/n"})

    assert fresh == f'{text}{gap}[models.a]\npath = "x\\"\\\\y\\u007f"\nhub = "o/n"\n'


def test_lines_end_as_the_others_do() -> None:
    assert with_table("[models.b]\r\n", "a b", {}) == '[models.b]\r\n\r\n[models."a b"]\r\n'


@pytest.mark.parametrize("old", ['"old"', "'old'", '"o\\"ld"'])
def test_path_is_changed_in_its_place(old: str) -> None:
    text = f"[models.a]\n  path = {old}  # 'here'\nhub = 'x'\n[models.b]\npath = 'other'\n"

    assert with_path(text, "a", "/new") == text.replace(old, '"/new"')


def test_name_that_no_file_can_hold_is_refused() -> None:
    with pytest.raises(CannotChange):
        with_table("", "a", {"path": "\udcff"})


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\x00\r"), max_size=12)
NAMES = st.sampled_from(["a", "a-b", "a b", "a.b", "b/c:d", "rules", "models", "é".encode().hex()])
PIECES = st.lists(
    st.sampled_from(
        [
            "# [models.a]\n",
            "\n",
            "  \n",
            "batch = 1\n",
            "summary = '''\n[models.a]\n'''\n",
            'path = "[models.b] # \\" "\n',
            "loras = [\n { path = 'x' }, # ]\n]\n",
        ]
    ),
    unique=True,
    max_size=4,
)


@given(st.dictionaries(NAMES, st.tuples(PIECES, PIECES), min_size=1, max_size=4), st.data())
def test_taking_out_what_was_put_in_gives_all_the_others_back(
    content: dict[str, tuple[list[str], list[str]]], data: st.DataObject
) -> None:
    text = ""
    for name, (own, rules) in content.items():
        below = rules and f"[models.{name!r}.rules]\n{''.join(rules)}"
        text += f"[models.{name!r}]\n{''.join(own)}{below or ''}"
    gone = data.draw(st.sampled_from(sorted(content)))

    fresh = without_table(text, gone)

    wanted = {name: table for name, table in tomllib.loads(text)["models"].items() if name != gone}
    assert tables(fresh) == wanted
    assert tables(with_table(fresh, gone, {})) == {**wanted, gone: {}}


@given(st.lists(st.tuples(NAMES, WORDS), unique_by=lambda pair: pair[0], max_size=5))
def test_whatever_is_put_in_is_there(pairs: list[tuple[str, str]]) -> None:
    text = ODD
    for name, word in pairs:
        text = with_table(text, f"new {name}", {"path": word})

    assert text.startswith(ODD)
    assert {name.removeprefix("new "): table["path"] for name, table in tables(text).items() if "new " in name} == dict(
        pairs
    )
