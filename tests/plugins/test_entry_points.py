"""Reading entry points from disk gives what importlib.metadata gives, only sooner."""

import zipfile
from pathlib import Path

import pytest

from tests.plugins.distributions import install, run

READ = """
from perdure.entry_points import entry_points
import sys
groups = ["perdure", "console_scripts", "pytest11", "hatch", "no-such-group"]
early = [sorted(entry_points(group)) for group in groups]
direct = "importlib.metadata" not in sys.modules
import importlib.metadata
late = [sorted(entry_points(group)) for group in groups]
result = [direct, early == late, early]
"""


def test_both_ways_agree_on_this_environment(tmp_path: Path) -> None:
    direct, equal, found = run(tmp_path, READ)
    assert direct
    assert equal
    assert len(found[1]) > 5
    assert found[-1] == []


def test_both_ways_agree_on_odd_files(tmp_path: Path) -> None:
    install(
        tmp_path,
        "Perdure.Odd-Name",
        "1!2.0rc1",
        {},
        "\n".join(
            (
                "; not a comment of this format = x",
                "[perdure]",
                "",
                "  # a comment",
                "  a   =  perdure_odd.plugin  ",
                "b=perdure_odd:thing.part",
                "c = perdure_odd.extra [one, two]",
                "[console_scripts]",
                "d = perdure_odd:main",
                "[perdure.more]",
                "e = nothing",
            )
        ),
    )
    direct, equal, found = run(tmp_path, READ)
    assert direct
    assert equal
    label = "Perdure.Odd-Name 1!2.0rc1"
    assert [point for point in found[0] if point[2] == label] == [
        ["a", "perdure_odd.plugin", label],
        ["b", "perdure_odd:thing.part", label],
        ["c", "perdure_odd.extra", label],
    ]


@pytest.mark.parametrize("first", ["", "import importlib.metadata"])
def test_a_distribution_shadows_those_later_on_the_path(tmp_path: Path, first: str) -> None:
    near, far = tmp_path / "near", tmp_path / "far"
    install(near, "perdure-jar", "2", {}, "[perdure]\nnew = perdure_jar.new\n")
    install(far, "perdure-jar", "1", {}, "[perdure]\nold = perdure_jar.old\n")
    found = run(
        near,
        f"""
        {first}
        import sys
        sys.path.append({str(far)!r})
        from perdure.entry_points import entry_points
        result = [p for p in entry_points("perdure") if p.name in ("old", "new")]
        """,
    )
    assert found == [["new", "perdure_jar.new", "perdure-jar 2"]]


def test_a_distribution_in_a_zip_file_is_found(tmp_path: Path) -> None:
    install(tmp_path / "site", "perdure-zip", "1", {}, "[perdure]\nz = perdure_zip.plugin\n")
    archive = tmp_path / "site.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for path in sorted((tmp_path / "site").rglob("*")):
            out.write(path, path.relative_to(tmp_path / "site"))
    found = run(
        archive,
        """
        from perdure.entry_points import entry_points
        result = [p for p in entry_points("perdure") if p.name == "z"]
        """,
    )
    assert found == [["z", "perdure_zip.plugin", "perdure-zip 1"]]


def test_a_finder_of_distributions_is_asked(tmp_path: Path) -> None:
    found = run(
        tmp_path,
        """
        import sys

        class Frozen:
            def find_spec(self, *arguments):
                return None
            def find_distributions(self, context=None):
                import importlib.metadata
                class Distribution(importlib.metadata.Distribution):
                    def read_text(self, name):
                        return {
                            "METADATA": "Name: perdure-ice\\nVersion: 3\\n",
                            "entry_points.txt": "[perdure]\\nice = perdure_ice\\n",
                        }.get(name)
                    def locate_file(self, path):
                        return path
                return [Distribution()]

        sys.meta_path.append(Frozen())
        from perdure.entry_points import entry_points
        result = [p for p in entry_points("perdure") if p.name == "ice"]
        """,
    )
    assert found == [["ice", "perdure_ice", "perdure-ice 3"]]


def test_unreadable_and_missing_directories_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "broken-1.dist-info").write_text("a file where a directory should be")
    (tmp_path / "empty-1.dist-info").mkdir()
    result = run(
        tmp_path,
        """
        import sys
        sys.path[:0] = ["/no/such/directory", ""]
        from perdure.entry_points import entry_points
        result = [p.name for p in entry_points("perdure")]
        """,
    )
    assert "memory" in result
