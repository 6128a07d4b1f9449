"""Files of every kind and size are restored; bad ones are reported and cost nothing but themselves."""

import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from macattr.image_files import SUFFIXES
from ram_models.data.pictures import Picture, read_picture, write_picture
from ram_models.networks.inference import tile_count
from ram_models.recipes import restore
from ram_models.recipes.restore import Config, main


class Negative(torch.nn.Module):
    """Stands in for a network: exact, fast, and not the identity."""

    def forward(self, image):
        return 1 - image


@pytest.fixture(autouse=True)
def _negative(monkeypatch):
    real = restore.network_by_name
    by_name = lambda name, *others: (Negative(), None) if name == "negative" else real(name, *others)  # noqa: E731
    monkeypatch.setattr(restore, "network_by_name", by_name)


def pixels(channels: int, dtype=np.uint8, size=(20, 30)) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, np.iinfo(dtype).max + 1, (*size, channels), dtype)


@pytest.fixture
def folder(tmp_path):
    """Three pictures, one of them in a subfolder."""
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    for name in ("a.png", "b.jpg", "sub/c.png"):
        write_picture(Picture(pixels(3)), source / name)
    return Config(source, tmp_path / "out", "negative", tile=64, overlap=16)


def written(config: Config) -> list[str]:
    return sorted(file.relative_to(config.out).as_posix() for file in config.out.rglob("*") if file.suffix in SUFFIXES)


@pytest.mark.parametrize("channels", [1, 2, 3, 4], ids=["grey", "grey_alpha", "rgb", "rgb_alpha"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(20, 30), (90, 70), (1, 3)], ids=["whole", "tiled", "tiny"])
def test_depth_channels_and_alpha_are_kept(tmp_path, channels, dtype, size):
    before = pixels(channels, dtype, size)
    write_picture(Picture(before), tmp_path / "a.png")
    assert main(Config(tmp_path / "a.png", tmp_path / "out.png", "negative", tile=64, overlap=16)) == 0
    after = read_picture(tmp_path / "out.png").pixels
    assert after.dtype == dtype
    alpha = channels in (2, 4)
    np.testing.assert_array_equal(after[..., channels - alpha :], before[..., channels - alpha :])
    # Blending tiles in float32 moves a value of 16 bits by at most one.
    error = np.abs(after.astype(int) + before - np.iinfo(dtype).max)[..., : channels - alpha]
    assert error.max() <= (dtype == np.uint16)


def test_the_bundled_network_restores_a_file_whole_and_with_twin_masks(tmp_path):
    write_picture(Picture(pixels(3)), tmp_path / "a.png")
    whole = Config(tmp_path / "a.png", tmp_path / "whole.png")
    twins = replace(whole, out=tmp_path / "twins.png", twins=True)
    again = replace(twins, out=tmp_path / "again.png")
    assert [main(config) for config in (whole, twins, again)] == [0, 0, 0]
    first, second, third = (read_picture(config.out).pixels for config in (whole, twins, again))
    assert (first != second).any()
    np.testing.assert_array_equal(second, third)


def test_a_folder_keeps_names_formats_and_subfolders(folder):
    assert main(folder) == 0
    assert written(folder) == ["a.png", "b.jpg", "sub/c.png"]


def test_another_format_is_written_on_request(folder):
    assert main(replace(folder, format="tif")) == 0
    assert written(folder) == ["a.tif", "b.tif", "sub/c.tif"]


@pytest.mark.parametrize("suffixed", [True, False])
def test_one_file_goes_to_a_file_or_into_a_folder(folder, suffixed):
    out = folder.out / ("x.png" if suffixed else "")
    assert main(replace(folder, source=folder.source / "a.png", out=out)) == 0
    assert written(folder) == ["x.png" if suffixed else "a.png"]


def test_existing_results_are_skipped_and_a_stopped_run_continues(folder, monkeypatch, capsys):
    def stop(source, *arguments):
        if source.name == "c.png":
            raise KeyboardInterrupt
        return real(source, *arguments)

    real = restore.restore_file
    with monkeypatch.context() as patched:
        patched.setattr(restore, "restore_file", stop)
        with pytest.raises(KeyboardInterrupt):
            main(folder)
    assert written(folder) == ["a.png", "b.jpg"]
    before = (folder.out / "a.png").stat().st_mtime_ns
    assert main(folder) == 0
    assert written(folder) == ["a.png", "b.jpg", "sub/c.png"]
    assert (folder.out / "a.png").stat().st_mtime_ns == before
    assert "restored 1 of 3 images" in (printed := capsys.readouterr().out)
    assert "2 skipped, their results exist (--existing overwrite replaces them)" in printed


def test_results_of_other_settings_or_pictures_are_not_taken_for_finished_ones(folder):
    main(folder)
    before = (folder.out / "a.png").read_bytes()
    other = replace(folder, tile=folder.tile // 2)
    with pytest.raises(ValueError, match=r"was made with tile = 64, now 32: choose another `out`, or --exist"):
        main(other)
    write_picture(Picture(pixels(4)[..., :3]), folder.source / "a.png")
    with pytest.raises(ValueError, match=r"a\.png' was made of another picture than .*a\.png' is now"):
        main(folder)
    (folder.out / "restored.jsonl").unlink()
    with pytest.raises(ValueError, match="exists, and nothing says how it was made"):
        main(folder)
    assert (folder.out / "a.png").read_bytes() == before
    assert main(replace(folder, existing="overwrite")) == 0
    assert main(folder) == 0


def test_a_seed_needs_masks(folder):
    with pytest.raises(ValueError, match="`seed` = 3 has no effect without `twins`"):
        main(replace(folder, seed=3))


def test_existing_results_are_refused_or_overwritten_on_request(folder):
    main(folder)
    before = (folder.out / "a.png").stat().st_mtime_ns
    with pytest.raises(ValueError, match=r"out/a\.png' exists: choose another `out`"):
        main(replace(folder, existing="refuse"))
    assert (folder.out / "a.png").stat().st_mtime_ns == before
    assert main(replace(folder, existing="overwrite")) == 0
    assert (folder.out / "a.png").stat().st_mtime_ns > before


@pytest.mark.parametrize("existing", ["skip", "overwrite"])
def test_a_source_is_never_overwritten(folder, existing):
    config = replace(folder, out=folder.source, existing=existing)
    before = (folder.source / "a.png").read_bytes()
    with pytest.raises(ValueError, match=r"a\.png' would replace a source: choose another `out`"):
        main(config)
    assert (folder.source / "a.png").read_bytes() == before


def test_a_link_to_the_source_is_seen_through(folder):
    link = folder.source.parent / "link.png"
    link.symlink_to(folder.source / "a.png")
    with pytest.raises(ValueError, match="would replace a source"):
        main(replace(folder, source=folder.source / "a.png", out=link, existing="overwrite"))


def test_results_inside_the_source_are_not_restored_again(folder):
    config = replace(folder, out=folder.source / "restored")
    assert main(config) == main(config) == 0
    assert written(config) == ["a.png", "b.jpg", "sub/c.png"]


def test_figures_inside_the_source_are_not_restored(folder):
    config = replace(folder, figure=folder.source / "figures")
    assert main(config) == main(config) == 0
    assert written(config) == ["a.png", "b.jpg", "sub/c.png"]
    with pytest.raises(ValueError, match=r"`figure` .* is the folder of the images: name another"):
        main(replace(folder, figure=folder.source))


def test_bad_files_are_reported_and_the_others_done(folder, capsys):
    (folder.source / "empty.png").touch()
    (folder.source / "text.png").write_text("no image")
    whole = (folder.source / "a.png").read_bytes()
    (folder.source / "truncated.png").write_bytes(whole[: len(whole) // 2])
    write_picture(Picture(pixels(4)), folder.source / "alpha.png")
    assert main(replace(folder, format="jpg")) == 2
    assert written(folder) == ["a.jpg", "b.jpg", "sub/c.jpg"]
    captured = capsys.readouterr()
    errors = [line for line in captured.err.splitlines() if line.startswith("ram restore: error: ")]
    assert [line.count(name) for line, name in zip(errors, ("alpha", "empty", "text", "truncated"), strict=True)]
    assert "JPEG cannot hold the alpha channel: write 'alpha' as png" in errors[0]
    assert "empty.png' cannot be read as an image: it is empty" in errors[1]
    assert "restored 3 of 7 images" in captured.out


def test_a_full_disk_is_reported_and_leaves_no_half_file(folder, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    assert main(folder) == 2
    assert written(folder) == []
    assert "No space left on device" in capsys.readouterr().err


def test_a_figure_shows_input_and_result(folder):
    figures = folder.out.parent / "figures"
    assert main(replace(folder, figure=figures)) == 0
    found = sorted(file.relative_to(figures).as_posix() for file in figures.rglob("*.png"))
    assert found == ["a.png.png", "b.jpg.png", "sub/c.png.png"]


def test_figures_of_large_images_are_small(tmp_path):
    image = torch.rand(3, 300, 2000)
    figure = restore.side_by_side(image, 1 - image, "a")
    shown = [axes.images[0].get_array().shape for axes in figure.axes]
    assert shown == [(154, 1024, 3)] * 2 + [(128, 128, 3)] * 2


@pytest.mark.slow
def test_fifty_megapixels_pass_in_bounded_memory(tmp_path):
    """Image and result as float32 (0.6 GB each), a copy while it is written, and bytes: 1.74 to 2.12 GB were seen."""
    height, width = 5000, 10000
    row = np.random.default_rng(0).integers(0, 256, (1, width, 3), np.uint8)
    Image.fromarray(np.broadcast_to(row, (height, width, 3))).save(tmp_path / "a.png", compress_level=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    config = Config(tmp_path / "a.png", tmp_path / "b.png", "negative", tile=2048, overlap=64)
    assert tile_count(height, width, config.tile, config.overlap) > 1
    assert main(config) == 0
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 2.3e9
    with Image.open(tmp_path / "b.png") as image:
        assert image.size == (width, height)
        np.testing.assert_array_equal(np.asarray(image.crop((0, 0, width, 1))), 255 - row)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 100}, "`tile` must be a positive multiple of 16 pixels, got 100"),
        ({"format": "gif"}, "`format` must be one of png, jpg, .*, got 'gif'"),
        ({"out": "x.png"}, r"`out` '.*x\.png' names a file, but '.*in' is a folder"),
        ({"source": "nowhere"}, "there is no file or folder '.*nowhere'"),
        ({"source": "in/a.png", "out": "x.png", "format": "jpg"}, r"`format` 'jpg' contradicts `out` '.*x\.png'"),
        ({"source": "in/a.png", "out": "x.xyz"}, r"`out` '.*x\.xyz' is not a folder and ends with none of \.png"),
        ({"source": "in/a.png", "out": "/dev/full"}, "`out` '/dev/full' is a file or device without suffix"),
        ({"network": "swin"}, "no network 'swin'"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_requests_that_cannot_be_met_are_refused_before_anything_is_done(folder, options, message):
    paths = {name: folder.out.parent / options[name] for name in ("source", "out") if name in options}
    with pytest.raises(ValueError, match=message):
        main(replace(folder, **options | paths))
    assert not folder.out.exists()


def test_two_sources_of_one_result_are_refused(folder):
    write_picture(Picture(pixels(3)), folder.source / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg' and '.*a\.png' would both become '.*a\.webp': rename one"):
        main(replace(folder, format="webp"))


@pytest.mark.parametrize("name", ["a\nb.png", "\udcff.png", "$x^{.png", "quo'te\".png", "1e3.png"])
def test_any_file_name_is_restored_and_drawn(tmp_path, name, capsys):
    (tmp_path / "in").mkdir()
    write_picture(Picture(np.zeros((16, 16, 3), np.uint8)), tmp_path / "in" / name)
    assert main(Config(tmp_path / "in", tmp_path / "out", "identity", figure=tmp_path / "figures")) == 0
    assert (tmp_path / "out" / name).is_file()
    assert (tmp_path / "figures" / f"{name}.png").is_file()


@pytest.mark.parametrize("twins", ["a.png", "sub/._a.png", ".ipynb_checkpoints/a.jpg"])
def test_images_of_one_stem_are_both_restored_and_hidden_ones_are_not(tmp_path, twins):
    for name in ("a.jpg", "b.jpg", twins):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        write_picture(Picture(np.zeros((16, 16, 3), np.uint8)), tmp_path / "in" / name)
    assert main(Config(tmp_path / "in", tmp_path / "out", "identity")) == 0
    results = sorted(file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*.[jp]*g"))
    assert results == (["a.jpg", "a.png", "b.jpg"] if twins == "a.png" else ["a.jpg", "b.jpg"])


def test_a_size_that_does_not_fit_the_network_names_file_size_and_remedy(tmp_path, monkeypatch, capsys):
    class Strided(torch.nn.Module):
        def forward(self, image):
            return image + torch.nn.functional.avg_pool2d(image, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)

    monkeypatch.setattr("ram_models.recipes.restore.network_by_name", lambda *_: (Strided(), None))
    (tmp_path / "in").mkdir()
    for name, side in (("good.png", 32), ("odd.png", 33)):
        write_picture(Picture(np.zeros((side, 32, 3), np.uint8)), tmp_path / "in" / name)
    assert main(Config(tmp_path / "in", tmp_path / "out")) == 2
    (error,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("ram restore: error"))
    assert "odd.png" in error
    assert "33x32 pixels" in error
    assert "set `tile`" in error
    assert (tmp_path / "out" / "good.png").is_file()


def test_a_link_to_another_source_is_seen_through(folder):
    folder.out.mkdir(exist_ok=True)
    sources = sorted(folder.source.glob("*.png"))
    other = folder.source / "other.png"
    other.write_bytes(sources[0].read_bytes())
    (folder.out / sources[0].name).symlink_to(other)
    with pytest.raises(ValueError, match="would replace a source"):
        main(replace(folder, existing="overwrite"))
