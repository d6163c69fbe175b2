"""The study: splits that share no combination, and a toy of all of it, as `make study-smoke` runs it."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks.study.__main__ import main
from benchmarks.study.combinations import is_held_out
from benchmarks.study.figures import COLUMNS, figures, read
from benchmarks.study.noise import EMPTY_PHRASES, REFUSALS, planted
from benchmarks.study.recipes import WORLDS, named, rows
from benchmarks.study.runs import Job, Study
from benchmarks.study.table import filled, markdown, paired, summary
from benchmarks.study.world import scenes, true_captions
from pipeline.demo_world.facts import facts
from pipeline.errors import HolismError


def combinations(split: str, count: int) -> set[tuple[str, ...]]:
    return {fact for _, t in islice(scenes(split, 0), count) for fact in facts(t) if is_held_out(fact)}


def test_only_the_new_split_has_what_is_held_out() -> None:
    for split in ("start", "train", "develop", "known"):
        assert not combinations(split, 40)
    assert all(any(is_held_out(fact) for fact in facts(t)) for _, t in islice(scenes("new", 0), 40))


def test_no_two_splits_share_a_scene() -> None:
    found = [
        t["seed"] for split in ("start", "train", "develop", "known", "new") for _, t in islice(scenes(split, 0), 9)
    ]
    assert len(set(found)) == len(found)


def test_true_captions_have_every_slot_of_training() -> None:
    _, t = next(scenes("train", 0))
    captions = list(true_captions("0", t, ("detail", "sentence", "phrase"), np.random.default_rng(0)))
    assert [(caption["perspective"], caption["granularity"]) for caption in captions] == [
        ("detail", "sentence"),
        ("summary", "sentence"),
        ("summary", "phrase"),
    ]


def test_noise_is_of_another_scene_of_its_own_or_says_nothing() -> None:
    true = [
        caption
        for number, (_, t) in enumerate(islice(scenes("train", 0), 5))
        for caption in true_captions(str(number), t, ("detail", "style", "phrase"), np.random.default_rng(number))
    ]
    noise = list(planted(true, np.random.default_rng(0)))
    of_scene = {key: {caption["text"] for caption in true if caption["key"] == key} for key in "01234"}
    for key, own in of_scene.items():
        other, copy, empty = [caption["text"] for caption in noise if caption["key"] == key]
        assert other not in own
        assert any(other in texts for texts in of_scene.values())
        assert copy in own
        assert empty in {*REFUSALS, *EMPTY_PHRASES}


def test_differences_are_taken_seed_by_seed() -> None:
    runs = [("a", 0, 1.0), ("a", 1, 5.0), ("b", 0, 2.0), ("b", 1, 6.0), ("c", 0, 2.0), ("c", 1, 9.0)]
    frame = pd.DataFrame(runs, columns=["row", "seed", "T2I R@1"]).assign(dataset="known")
    found = paired(frame, "known", "a", ["T2I R@1"])["T2I R@1"]
    assert found["b"] == "+1.0 ± 0.0"
    assert found["c"] == "+2.5 ± 1.5 (p 0.34)"  # t = 5/3 with one degree of freedom


def test_specialisation_is_a_column_and_one_branch_has_none() -> None:
    """Of two directions the mean; the other columns of these rows are of no interest."""
    results = pd.DataFrame(
        {"row": name, "seed": 0, "dataset": "known", "task": "retrieval", "readout": "branches", "query": "all",
         "metric": metric, "value": value, "seconds": 1.0, "cpu_seconds": 1.0}
        for name, metric, value in (
            ("cls", "text_to_image_own_branch_margin", 0.1), ("cls", "image_to_text_own_branch_margin", 0.3),
            ("cls", "text_to_image_own_branch_best", 0.9), ("o2m", "text_to_image_recall@1", 0.5),
        )
    )  # fmt: skip
    found = figures(results)
    assert found.set_index("row")["specialisation"].to_dict() == pytest.approx(
        {"cls": 20.0, "o2m": np.nan}, nan_ok=True
    )
    shown = summary(found, "known")
    assert list(shown.columns) == [column.name for column in COLUMNS]
    assert shown["specialisation"].to_dict() == {"cls": "20.0", "o2m": "–"}


def test_own_is_the_branch_of_what_is_asked_where_every_question_has_one() -> None:
    def run(row: str, branches: list[str]) -> list[dict[str, Any]]:
        own = {"row": row, "seed": 0, "dataset": "known", "task": "classification", "metric": "accuracy"}
        values = {"mean": 0.5, **{f"branch:{name}": 0.6 + 0.1 * place for place, name in enumerate(branches)}}
        return [
            {**own, "readout": readout, "query": query, "value": value}
            for readout, value in values.items()
            for query in ("object", "style")
        ]

    rows = [*run("cls", ["style", "main_object"]), *run("o2m", []), *run("branches_2", ["style", "free"])]
    found = figures(pd.DataFrame(rows)).set_index("row")["zero-shot own"]
    assert found.to_dict() == pytest.approx({"cls": 65.0, "o2m": 50.0, "branches_2": np.nan}, nan_ok=True)


def test_results_without_a_figure_show_none() -> None:
    rows = [
        {
            "row": row,
            "seed": 0,
            "dataset": "known",
            "task": "classification",
            "readout": "mean",
            "metric": "accuracy",
            "query": "object",
            "value": value,
            "seconds": 1,
            "cpu_seconds": 1,
        }
        for row, value in (("a", 0.5), ("b", 0.25))
    ]
    found = figures(pd.DataFrame(rows))
    assert summary(found, "known").loc["a", ["object", "mIoU"]].tolist() == ["50.0", "–"]
    assert paired(found, "known", "a", ["object", "mIoU"]).loc["b"].tolist() == ["-25.0", "–"]


@pytest.mark.slow
def test_a_toy_of_the_study_runs_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path), "smoke"]) == 0
    found = figures(read(tmp_path / "results"))
    assert set(zip(found["row"], found["seed"], found["dataset"], strict=True)) == {
        (row, 0, split) for row in ("o2m_truth", "mlp_last_block_truth") for split in ("known", "new")
    }
    for column in ("T2I own", "mIoU", "pointing"):
        assert found[column].between(0, 100).all()
    assert set(found.loc[found["specialisation"].notna(), "row"]) == {"mlp_last_block_truth"}
    one_file, picture = tmp_path / "all.parquet", tmp_path / "known.png"
    assert main(["--root", str(tmp_path), "gather", str(one_file)]) == 0
    for options in ([], ["--against", "o2m_truth"], ["--costs"]):
        assert main(["plot", "known", str(picture), "--results", str(one_file), *options]) == 0
        assert picture.stat().st_size > 1000
        picture.unlink()
    pd.testing.assert_frame_equal(figures(read(one_file)), found)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert main(["--root", str(tmp_path), "smoke"]) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")} == before
    assert "| mlp_last_block_truth |" in capsys.readouterr().out


def test_captions_that_are_not_there_are_asked_for(tmp_path: Path) -> None:
    job = Job(rows()["cls"], 0, "develop")
    with pytest.raises(
        HolismError, match=r"row cls wants .*model\.parquet.* benchmarks\.study captions --name model first"
    ):
        Study(tmp_path).prepare([job])


def test_without_names_rows_run_whose_captions_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second model, or a second answer, may not have been asked; the others do not wait for it."""
    ran: list[str] = []
    monkeypatch.setattr(Study, "run", lambda _, job: ran.append(job.row.name))
    assert main(["--root", str(tmp_path), "run"]) == 1
    assert "no captions are in" in capsys.readouterr().err
    (tmp_path / "captions").mkdir()
    (tmp_path / "captions" / "model.parquet").touch()
    assert main(["--root", str(tmp_path), "run"]) == 0
    assert {"o2m", "mlp_last_block", "cls_16", "o2m_nothing"} <= set(ran)
    assert not {"two_answers", "two_models", "o2m_truth", "o2m_emoji"} & set(ran)
    said = capsys.readouterr().err
    assert "left out: row two_models wants" in said
    assert "benchmarks.study captions --name second first" in said


def test_an_unknown_row_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--root", str(tmp_path), "run", "o2n"]) == 1
    assert "no row is called o2n; expected some of alt_text_o2o" in capsys.readouterr().err


def test_rows_are_recipes() -> None:
    from flows.config import HolismConfig
    from pipeline.config import build

    study = Study(Path("study"))
    for row in rows().values():
        split = next(iter(row.splits))
        config = build(HolismConfig, study.config(Job(row, 3, split), Path("work"), "model"), source=row.name)
        recipe = config.train.run(row.name)
        assert (recipe.seed, recipe.warm_start, recipe.model["embed_dim"]) == (3, "model", row.width)
        for key in set(row.train) - {"slots", "distillation"}:
            assert getattr(recipe, key) == row.train[key], (row.name, key)
        several = len(recipe.branch_names) > 1 and not row.name.startswith("mlp_last_block")
        assert {"branch_kind", "projection"} <= set(row.train) or not several, row.name
        assert config.evaluate.benchmarks == tuple(f"study/{name}" for name in row.splits[split])
        assert [table.name for table in config.caption.tables] == row.captions.split("+")


def test_a_variant_is_a_row_in_another_setting() -> None:
    known = rows()
    cheaper, narrow, nothing = known["mlp_equal_cost"], known["mlp_16"], known["cls_own_projection_nothing"]
    assert cheaper.train == {**known["mlp"].train, "epochs": 1}
    assert (narrow.train, narrow.width, known["mlp"].width) == (known["mlp"].train, 16, 64)
    assert nothing.train == {**known["cls_own_projection"].train, "epochs": 4}
    assert (nothing.start, nothing.core) == ("nothing", False)
    assert Study(Path("study")).start(nothing) is None
    assert {row.variant for row in named(["variant:emoji"])} == {"emoji"}
    assert all(row.core for row in named(["core"]))
    assert [row.name for row in named(["mlp", "core"])].count("mlp") == 1


def test_the_default_is_a_row() -> None:
    from training.config import RunConfig

    assert rows()["mlp_last_block"].train == {}
    defaults = RunConfig()
    assert (defaults.branch_kind, defaults.branch_blocks, defaults.projection) == ("mlp", 1, "branch")
    assert defaults.losses == {"m2m": 1.0, "served": 1.0}


def of_a_run(row: str, dataset: str, value: float, seed: int = 0) -> pd.DataFrame:
    own = {"row": row, "seed": seed, "dataset": dataset, "task": "classification", "query": "object", "value": value}
    more = {"readout": "mean", "metric": "accuracy", "training_cpu_seconds": 10.0, "images_seen": 100}
    return pd.DataFrame([{**own, **more}])


def test_a_variant_without_the_row_to_compare_with_is_compared_with_the_main_one(tmp_path: Path) -> None:
    runs = [("o2m", 0.5), ("cls", 0.6), ("mlp_equal_cost", 0.75), ("o2m_16", 0.25), ("cls_16", 0.5)]
    results = tmp_path / "all.parquet"
    pd.concat([of_a_run(row, "known", value) for row, value in runs]).to_parquet(results)
    lines = markdown(results).splitlines()
    for row, shown in (("cls", "+10.0"), ("mlp_equal_cost", "+25.0"), ("cls_16", "+25.0")):
        assert any(line.startswith(f"| {row} | {shown} ") for line in lines), row
    assert "| mlp_equal_cost | – | – | 10 | 10.0 |" in " ".join(lines)


def test_the_tables_of_the_page_are_those_of_the_results() -> None:
    page = Path("docs/study.md").read_text()
    assert page.count("<!-- table: ") >= 10
    assert filled(page, Path("benchmarks/study/results.parquet")) == page


def test_a_page_gets_the_tables_that_it_wants(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results, page = tmp_path / "all.parquet", tmp_path / "page.md"
    pd.concat([of_a_run("o2m_16", "known", 0.5), of_a_run("cls_16", "known", 0.75)]).to_parquet(results)
    command = ["table", "--results", str(results), "--page", str(page)]
    page.write_text("# A page\n\n<!-- table: known 16 -->\n\n| row |\n| --- |\n| o2m_16 |\n\nMore.\n")
    for _ in range(2):
        assert main(command) == 0
        lines = page.read_text().splitlines()
        of_rows = [line for line in lines if line.startswith("| ")][2:]
        assert of_rows == ["| o2m_16 | 50.0 | 50.0 | 50.0 | 50.0 |", "| cls_16 | 75.0 | 75.0 | 75.0 | 75.0 |"]
        assert (lines[0], lines[-1]) == ("# A page", "More.")
    page.write_text("<!-- table: known 16 -->")
    assert main(command) == 0
    assert "| cls_16 | 75.0 |" in page.read_text()
    page.write_text("<!-- table: known -->\n")
    assert main(command) == 1
    assert "wants a table 'known', which the results do not have; they have known 16, " in capsys.readouterr().err


def test_pictures_of_what_is_not_there_are_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "all.parquet"
    pd.concat([of_a_run("o2m_16", "known", 0.5), of_a_run("cls_16", "known", 0.75)]).to_parquet(results)
    asked = ["plot", "known", str(tmp_path / "p.png"), "--results", str(results)]
    assert main([*asked, "--variant", "16", "--against", "o2m"]) == 0
    assert main([*asked, "--variant", "16", "--against", "mlp"]) == 1
    assert "row mlp_16 has no results here; expected one of cls_16, o2m_16" in capsys.readouterr().err
    assert main(asked) == 1
    assert "no results of such rows on known" in capsys.readouterr().err
    assert main([*asked[:1], "new", *asked[2:], "--costs"]) == 1
    assert "no results of such rows on new" in capsys.readouterr().err
    nowhere = str(tmp_path / "nowhere")
    for command in (["--root", nowhere, "table"], ["table", "--results", nowhere], [*asked[:4], nowhere]):
        assert main(command) == 1
        assert "has no results; run rows first" in capsys.readouterr().err
    assert main(["table", "--results", str(results), "--page", nowhere]) == 1
    assert "is not there; name a page of Markdown" in capsys.readouterr().err
    assert main(["run", "o2m_emoji", "--on", "develop"]) == 1
    assert "row o2m_emoji has no scenes to develop on; expected --on test" in capsys.readouterr().err


def test_every_world_has_a_start_of_one_caption_a_picture() -> None:
    from flows.config import HolismConfig
    from pipeline.config import build

    epochs = {}
    for name in ("o2m", "o2m_16", "o2m_emoji"):
        row = rows()[name]
        config = build(HolismConfig, Study(Path("study")).start_config(row, "start"), source=name)
        recipe = config.train.run("start")
        assert [slot.name for slot in recipe.slots] == ["alt_text"]
        assert (recipe.losses, recipe.model["embed_dim"]) == ({"o2o": 1.0}, row.width)
        assert config.caption.tables[0].path == config.ingest.source.path
        epochs[name] = recipe.epochs
    assert epochs == {"o2m": 1, "o2m_16": 1, "o2m_emoji": 8}


def test_worlds_have_captions_of_their_own_names() -> None:
    """A workspace is known by the names of its captions."""
    names = [name for world in WORLDS.values() for name in world.tables]
    assert len(set(names)) == len(names)


def test_the_best_branch_answers_and_one_branch_has_one_vector() -> None:
    def results(row: str, readouts: dict[str, float]) -> pd.DataFrame:
        return pd.DataFrame(
            {"row": row, "seed": 0, "dataset": "known", "task": "retrieval", "readout": readout, "query": "style",
             "metric": "text_to_image_recall@1", "value": value}
            for readout, value in readouts.items()
        )  # fmt: skip

    several = results("cls", {"mean": 0.5, "max": 0.7, "branch:style": 0.8, "branch:detail": 0.1})
    found = figures(pd.concat([several, results("o2m", {"mean": 0.6})])).set_index("row")
    one_of_two = several.assign(row="free").replace({"branch:style": "branch:nouns"})
    free = figures(one_of_two).set_index("row").loc["free"]
    assert np.isnan(free["T2I own"])
    assert free["T2I best"] == pytest.approx(70)
    columns = ["T2I R@1", "T2I best", "T2I own"]
    assert found.loc["cls", columns].tolist() == pytest.approx([50, 70, 80])
    assert found.loc["o2m", columns].tolist() == pytest.approx([60, 60, 60])
    assert found["bytes, all branches"].to_dict() == {"cls": 2 * 4 * 64, "o2m": 4 * 64}
