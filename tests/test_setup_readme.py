"""What the README tells people to type works."""

import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]


def test_the_python_example_runs_as_it_stands(tmp_path, capsys):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.effect_noise((90, 70), 60).convert("RGB").save(photos / "a.png")
    Image.open(photos / "a.png").save(photos / "b.png")
    Image.new("RGB", (80, 80), (200, 30, 30)).save(photos / "c.png")
    example = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1).replace("/my/photos", str(photos))
    names = {}

    exec(compile(example, "README.md", "exec"), names)

    assert "1 group" in capsys.readouterr().out
    assert names["dataset"].count_sample_tags() == {"duplicate:keep": 1, "duplicate:drop": 1}
    assert len(names["view"]) == 2
    names["dataset"].delete()


@pytest.mark.parametrize(
    "page", [Path("README.md"), *sorted(path.relative_to(ROOT) for path in ROOT.glob("docs/*.md"))]
)
def test_every_file_that_a_page_points_to_is_there(page):
    text = page.read_text()
    targets = re.findall(r"\]\(([^)#]+)\)", text) + re.findall(r'src="([^"]+)"', text)

    missing = [t for t in targets if not t.startswith("http") and not page.parent.joinpath(t).exists()]

    assert missing == []


def test_every_make_target_of_the_readme_exists():
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"\bmake ([a-z-]+)", README))

    assert {"demo", "test"} <= named
    assert all(re.search(rf"^{target}: ", makefile, re.MULTILINE) for target in named)
