# SPDX-License-Identifier: LGPL-2.1-or-later
"""The manual pages say what the programs take: no option, key or argument more, and none less."""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from mdoc import Item, Page

from xenaudio import render
from xenaudio.backend import config
from xenaudio.backend.limits import Limits
from xenaudio.cli.main import parser
from xenaudio.core.engine import RouteKind
from xenaudio.core.tomlfile import TomlFile, TomlFileError

TREE = Path(__file__).resolve().parents[2]
MAN = TREE / "docs" / "man"
PAGES = {path.name: Page(path) for path in sorted(MAN.iterdir())}
MODULES = "pulseaudio-modules-xen.7"
TOML = "xenaudio.toml.5"


def subcommands(of: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


COMMANDS = subcommands(parser())


def page_of(command: str) -> Page:
    (found,) = [page for name, page in PAGES.items() if name[:-2] == f"xenaudio-{command}"]
    return found


Options = dict[tuple[str, ...], str]
"""What an option can be called, and what it is given."""


def options(of: argparse.ArgumentParser) -> Options:
    found = {}
    for action in of._actions:
        if action.option_strings and not isinstance(action, argparse._HelpAction):
            value = action.metavar or (action.dest.upper() if action.nargs != 0 else "")
            if action.choices and action.metavar is None:
                value = " | ".join(action.choices)
            found[tuple(action.option_strings)] = str(value)
    return found


def arguments(of: argparse.ArgumentParser) -> list[str]:
    return [str(action.metavar) for action in of._actions if not action.option_strings]


def written(items: list[Item]) -> Options:
    return {item.of("Fl"): item.value for item in items if item.of("Fl")}


def test_there_is_a_page_for_each_command_and_for_nothing_else() -> None:
    names = {name.rpartition(".")[0] for name in PAGES}
    assert names == {
        "xenaudio",
        "xenaudio.toml",
        "pulseaudio-modules-xen",
        *(f"xenaudio-{command}" for command in COMMANDS),
    }


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_its_files_name_says(name: str) -> None:
    title, _dot, section = name.rpartition(".")
    page = PAGES[name]
    assert f".Dt {title.upper()} {section}" in page.lines
    (first, *_others) = page.sections["NAME"]
    assert first.split()[:2] == [".Nm", title]


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_what_readers_look_for(name: str) -> None:
    wanted = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "FILES", "EXIT STATUS"]
    wanted += ["EXAMPLES", "DIAGNOSTICS", "SEE ALSO"]
    if name.endswith(".5"):
        wanted = [section for section in wanted if section not in ("OPTIONS", "EXIT STATUS")]
    assert [section for section in PAGES[name].sections if section in wanted] == wanted


@pytest.mark.parametrize("name", PAGES)
def test_pages_of_ours_that_a_page_refers_to_are_there(name: str) -> None:
    ours = {
        f"{title}.{section}"
        for title, section in PAGES[name].references()
        if title.startswith(("xenaudio", "pulseaudio-modules"))
    }
    assert ours <= set(PAGES)


@pytest.mark.parametrize("unit", sorted((TREE / "packaging").glob("*/*.service")), ids=str)
def test_the_pages_that_a_unit_names_are_there(unit: Path) -> None:
    named = re.findall(r"man:([\w.-]+)\((\d)\)", unit.read_text())
    assert named
    assert {f"{title}.{section}" for title, section in named} <= set(PAGES)


def test_the_first_page_names_the_commands_and_the_options_of_all() -> None:
    page = PAGES["xenaudio.1"]
    named = [item.of("Cm")[0] for item in page.items("DESCRIPTION") if item.of("Cm")]
    assert sorted(named) == sorted(COMMANDS)
    assert written(page.items("OPTIONS")) == {("-h", "--help"): "", **options(parser())}


FLAT = [name for name, command in COMMANDS.items() if not subcommands(command)]
NESTED = [name for name in COMMANDS if name not in FLAT]


@pytest.mark.parametrize("command", FLAT)
def test_a_commands_page_has_its_options_and_arguments(command: str) -> None:
    items = page_of(command).items("OPTIONS")
    assert written(items) == options(COMMANDS[command])
    assert [item.of("Ar")[0] for item in items if not item.of("Fl")] == arguments(COMMANDS[command])


@pytest.mark.parametrize("command", FLAT)
def test_a_synopsis_has_no_option_that_there_is_not(command: str) -> None:
    lines = list(page_of(command).macros("SYNOPSIS"))
    named = {flag for line in lines for flag in line.of("Fl")} - {"-v"}
    there = {flag for flags in options(COMMANDS[command]) for flag in flags}
    assert named <= there
    if not any("OPTION" in line.of("Ar") for line in lines):
        assert {flags[-1] for flags in options(COMMANDS[command])} <= named


@pytest.mark.parametrize("command", NESTED)
def test_a_page_of_several_commands_has_each_with_its_options_and_arguments(command: str) -> None:
    page = page_of(command)
    commands = subcommands(COMMANDS[command])
    items = {item.of("Cm")[0]: item for item in page.items("COMMANDS") if item.of("Cm")}
    assert list(items) == list(commands)
    # What each of them has need not be said with each.
    everywhere = set.intersection(*(set(options(each)) for each in commands.values()))
    for name, each in commands.items():
        flags = {called[-1] for called in options(each)}
        assert flags - {called[-1] for called in everywhere} <= set(items[name].of("Fl")) <= flags
        values = [options(each)[(flag,)] for flag in items[name].of("Fl")]
        given = [value for value in items[name].of("Ar") if value not in values]
        assert given[: len(arguments(each))] == arguments(each)
    union: Options = {}
    for each in commands.values():
        union |= options(each)
    assert written(page.items("OPTIONS")) == union


def keys(items: list[Item]) -> list[str]:
    return [key for item in items for key in item.of("Cm")]


def expected_keys(parse: Callable[[TomlFile], object], content: str) -> list[str]:
    """What the program itself says that it takes, where there is an unknown key."""
    with pytest.raises(TomlFileError) as refused:
        parse(TomlFile("file", content))
    (line,) = [text for text in str(refused.value).splitlines() if "unknown key" in text]
    return line.rpartition("expected ")[2].split(", ")


ROUTES, LIMITS = "Routes: [[route]] tables", "Limits: [[limits]] tables"


@pytest.mark.parametrize(("table", "subsection"), [("route", ROUTES), ("limits", LIMITS)])
def test_the_configurations_page_has_its_keys(table: str, subsection: str) -> None:
    there = expected_keys(config.parse, f"[[{table}]]\nnonsense = 1\n")
    assert keys(PAGES[TOML].items("DESCRIPTION", subsection)) == there


def test_the_configurations_page_has_its_tables() -> None:
    there = expected_keys(config.parse, "nonsense = 1\n")
    titles = [line for line in PAGES[TOML].sections["DESCRIPTION"] if line.startswith(".Ss ")]
    assert re.findall(r"\[\[([\w-]+)\]\]", "\n".join(titles)) == there


def said_of(key: str, subsection: str) -> str:
    """What the configuration's page says of a key."""
    lines = PAGES[TOML].sections["DESCRIPTION"]
    lines = lines[lines.index(f".Ss {subsection}") :]
    begin = lines.index(f".It Cm {key}") + 1
    text = " ".join(lines[begin:])
    return re.split(r" \.(?:It|El|Ss)\b", text)[0]


@pytest.mark.parametrize(
    ("table", "key", "subsection"),
    [
        *(("route", key, ROUTES) for key in ("guest", "card", "pcm")),
        *(
            ("limits", key, LIMITS)
            for key in ("cards", "streams", "buffer-octets", "handshakes-per-second")
        ),
    ],
)
def test_the_least_and_the_most_that_the_page_says_are_what_is_taken(
    table: str, key: str, subsection: str
) -> None:
    bounds = re.search(r"from ([\d.]+) to (\d+)", said_of(key, subsection))
    assert bounds is not None
    low, high = (float(bound) if "." in bound else int(bound) for bound in bounds.groups())

    def takes(value: float) -> bool:
        more = 'output = "null"' if table == "route" else "cards = 1" if key != "cards" else ""
        content = f"[[{table}]]\n{key} = {value}\n{more}\n"
        try:
            config.parse(TomlFile("file", content))
        except TomlFileError:
            return False
        return True

    step = 0.01 if isinstance(low, float) else 1
    assert [takes(value) for value in (low - step, low, high, high + 1)] == [
        *(False, True),
        *(True, False),
    ]


@pytest.mark.parametrize(
    ("key", "default"),
    [
        (field.replace("_", "-"), value)
        for field, value in ((name, getattr(Limits(), name)) for name in vars(Limits()))
    ],
)
def test_the_page_says_what_counts_where_no_limit_is_set(key: str, default: float) -> None:
    assert said_of(key, LIMITS).endswith(f"Default: {default}.")


def test_the_configurations_example_is_right(tmp_path: Path) -> None:
    (example,) = [text for text in PAGES[TOML].examples() if text.startswith("[[route]]")]
    if not RouteKind.PULSE.built:
        example = example.replace('"pulse:tcp:127.0.0.1"', '"null"')
    found = config.parse(TomlFile("file", example.replace("/var/lib/xenaudio/", f"{tmp_path}/")))
    assert (len(found.routes.rules), len(found.limit_rules)) == (3, 1)


@pytest.mark.parametrize("name", [TOML, "xenaudio-check.8"])
def test_the_message_that_is_shown_is_what_is_said(name: str) -> None:
    (shown,) = [text for text in PAGES[name].examples() if text.startswith("xenaudio.toml:")]
    with pytest.raises(TomlFileError) as refused:
        config.parse(TomlFile("xenaudio.toml", '\n[[route]]\nmicrophone = "yes"\n'))
    assert str(refused.value) == shown


PCM = "[[card.pcm]]\n"
STREAM = f"[[card]]\n{PCM}[[card.pcm.stream]]\ntype = 'playback'\n"


def test_renders_page_has_the_keys_of_a_description() -> None:
    there = {
        *expected_keys(render.parse, f"[[card]]\nnonsense = 1\n{PCM}"),
        *expected_keys(render.parse, f"[[card]]\n{PCM}nonsense = 1\n"),
        *expected_keys(render.parse, f"{STREAM}nonsense = 1\n"),
        *expected_keys(render.parse, f"{STREAM}[pulseaudio]\nnonsense = 1\n"),
    }
    page = PAGES["xenaudio-render.8"]
    assert set(keys(page.items("DESCRIPTION"))) == there - {"pcm", "stream"}


def test_renders_example_makes_what_is_shown() -> None:
    description, stanza = PAGES["xenaudio-render.8"].examples()
    assert render.parse(TomlFile("file", description)).vsnd().rstrip() == stanza


def c_strings(file: str, name: str) -> list[str]:
    """The strings of a table or macro in a C file of the modules."""
    source = (TREE / "csrc/pulse" / file).read_text().replace("\\\n", " ")
    found = re.search(rf"\b{name}\b(?:\[\] = {{)?([^;{{}}\n]*(?:\n[^;{{}}#]*)?)", source)
    assert found is not None
    return re.findall(r'"(\w+)"', found[1])


def module_arguments(subsection: str) -> list[str]:
    named = keys(PAGES[MODULES].items("OPTIONS", subsection))
    assert all(name.endswith("=") for name in named)
    return [name.removesuffix("=") for name in named]


def test_the_modules_page_has_what_sink_and_source_take() -> None:
    there = c_strings("device-arguments.h", "XA_PULSE_MODARGS")
    assert len(there) > 1
    assert module_arguments("module-xenpv-sink and module-xenpv-source") == there


@pytest.mark.parametrize(
    "module", ["module-xenpv-sink", "module-xenpv-source", "module-xenpv-detect"]
)
def test_the_modules_page_has_what_each_takes_besides(module: str) -> None:
    there = c_strings(f"{module}.c", "valid_modargs")
    assert there
    assert module_arguments(module) == there


def test_the_modules_page_names_the_latencies_that_are_taken() -> None:
    source = (TREE / "csrc/pulse/stream-open.h").read_text()
    least, most, default = (
        int(found) // 1000
        for name in ("MIN", "MAX", "DEFAULT")
        for found in re.findall(rf"XA_PULSE_LATENCY_{name} UINT64_C\((\d+)\)", source)
    )
    text = " ".join(PAGES[MODULES].sections["OPTIONS"])
    assert f"in milliseconds, from {least} to {most}. Default: {default}," in text


def typed() -> list[tuple[str, str]]:
    """The command lines of `xenaudio` in examples, with their page."""
    found = []
    for name, page in PAGES.items():
        for example in page.examples():
            for line in re.split(r"[|\n]", re.sub(r'"\[\[[^"]*"', "VSND", example)):
                line = re.sub(r"^[$# ]*(sudo -u xenaudio )?|[<&].*", "", line)
                if line.startswith("xenaudio "):
                    found.append((name, line.strip()))
    return found


@pytest.mark.parametrize(("name", "line"), typed())
def test_a_command_line_of_an_example_is_taken(name: str, line: str) -> None:
    del name
    inner = shlex.split(line, comments=True)[1:]
    while inner:
        parsed = parser().parse_args(inner)
        # What `localhv run` runs.
        inner = getattr(parsed, "argv", [])
        inner = inner[inner.index("xenaudio") + 1 :] if "xenaudio" in inner else []


def test_there_are_command_lines_in_examples() -> None:
    assert len(typed()) > len(COMMANDS)


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
@pytest.mark.parametrize("name", PAGES)
def test_mandoc_finds_nothing(name: str) -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", str(MAN / name)], capture_output=True, text=True, check=False
    )
    # Whether other packages' pages are installed is not the page's concern.
    found = [line for line in done.stdout.splitlines() if "referenced manual not found" not in line]
    assert found == []


@pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")
@pytest.mark.parametrize("name", PAGES)
def test_man_shows_it_without_a_warning(name: str) -> None:
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", str(MAN / name)],
        env={
            "PATH": "/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "MANWIDTH": "80",
            "HOME": "/nonexistent",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
