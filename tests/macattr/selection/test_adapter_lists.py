"""Where other tools put adapters, by their own rules: exactly the selected layers, or no file."""

import tomllib

import pytest
import yaml
from torch import nn

from macattr.layers.table import LayerTable
from macattr.selection.adapter_lists import read_axolotl, read_diffusers, read_kohya
from macattr.selection.exports import export
from macattr.selection.rules import Selection, SelectionRule, select

pytest.importorskip("peft", reason="needs peft: pip install 'macattr[peft]'")
diffusers = pytest.importorskip("diffusers", reason="needs diffusers: pip install 'macattr[hf]'")

pytestmark = [
    pytest.mark.filterwarnings("ignore:top .* at random:UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
]
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


class Stack(nn.Module):
    """Two kinds of blocks of linear layers, with the names that the authors of Flux gave."""

    def __init__(self) -> None:
        super().__init__()
        self.double_blocks = nn.ModuleList(
            nn.ModuleDict({"img_attn": nn.ModuleDict({"qkv": nn.Linear(2, 6), "proj": nn.Linear(2, 2)})})
            for _ in range(11)
        )
        self.single_blocks = nn.ModuleList(
            nn.ModuleDict({"linear1": nn.Linear(2, 2), "norm": nn.LayerNorm(2)}) for _ in range(2)
        )
        self.img_in = nn.Linear(2, 2)


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(4, 4, 4, 4),
        layers_per_block=2,
        attention_head_dim=2,
        cross_attention_dim=4,
        norm_num_groups=2,
    )


@pytest.fixture(scope="module")
def flux() -> nn.Module:
    return diffusers.FluxTransformer2DModel(
        in_channels=4,
        num_layers=3,
        num_single_layers=3,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=4,
        pooled_projection_dim=4,
        axes_dims_rope=(2, 2),
    )


def chosen(network: nn.Module, layers: list[str]) -> Selection:
    table = LayerTable.of(network)
    return select(
        {name: 1 / rank for rank, name in enumerate(layers, start=1)}, table, SelectionRule(count=len(layers))
    )


def linear(network: nn.Module, start: str) -> list[str]:
    kinds = (nn.Linear, nn.Conv2d)
    return [name for name, part in network.named_modules() if name.startswith(start) and isinstance(part, kinds)]


@pytest.mark.parametrize("form", ["diffusers", "axolotl"])
def test_any_layers_with_adapters_come_back(flux, form, tmp_path):
    layers = [f"transformer_blocks.1.attn.{name}" for name in ATTENTION]
    export(chosen(flux, layers), tmp_path / "new" / "file", form, flux)
    read = {"diffusers": read_diffusers, "axolotl": lambda *given: read_axolotl(*given).adapted}[form]
    assert set(read(tmp_path / "new" / "file", flux)) == set(layers)


def test_whole_modules_stand_for_the_layers_inside(flux, tmp_path):
    table = LayerTable.of(flux, ["transformer_blocks.0.ff"], whole_modules=True)
    selection = select({"transformer_blocks.0.ff": 1.0}, table, SelectionRule(count=1))
    export(selection, tmp_path / "file", "diffusers", flux)
    inside = {"transformer_blocks.0.ff.net.0.proj", "transformer_blocks.0.ff.net.2"}
    assert set(read_diffusers(tmp_path / "file", flux)) == inside


def test_names_at_whose_end_others_stand_are_refused_and_nothing_is_left(flux, tmp_path):
    with pytest.raises(ValueError, match=r"would adapt 3 layers such as 'single_transformer_blocks\.0\.proj_out'"):
        export(chosen(flux, ["proj_out", "x_embedder"]), tmp_path / "file", "diffusers", flux)
    assert not (tmp_path / "file").exists()


def test_layers_without_adapters_are_refused(flux, tmp_path):
    with pytest.raises(ValueError, match="peft cannot apply this configuration"):
        export(chosen(flux, ["transformer_blocks.0.attn.norm_q"]), tmp_path / "file", "diffusers", flux)


def test_axolotl_reads_one_rank_and_copies(unet, tmp_path):
    layers = ["conv_in", "conv_norm_out"]
    said = export(chosen(unet, layers), tmp_path / "file", "axolotl", unet, rank=2)
    content = yaml.safe_load((tmp_path / "file").read_text())
    assert content == {
        "adapter": "lora",
        "lora_r": 2,
        "lora_alpha": 2,
        "lora_target_modules": "^(?:conv_in)$",
        "lora_modules_to_save": ["conv_norm_out"],
    }
    assert said.startswith("read back and applied: 1 layers with adapters, 1 trained in full")


def test_flux_of_its_authors_takes_any_layers_in_blocks(tmp_path):
    network = Stack()
    layers = ["double_blocks.1.img_attn.qkv", "single_blocks.0.linear1"]  # and not double_blocks.10
    export(chosen(network, layers), tmp_path / "file", "kohya", network, rank=4)
    content = tomllib.loads((tmp_path / "file").read_text())
    assert (content["network_module"], content["network_dim"]) == ("networks.lora_flux", 4)
    assert read_kohya(tmp_path / "file", network) == layers
    with pytest.raises(ValueError, match="would leave out 2 layers such as 'img_in'"):
        export(chosen(network, [*layers, "img_in", "single_blocks.0.norm"]), tmp_path / "file", "kohya", network)


def test_flux_of_diffusers_takes_whole_blocks(flux, tmp_path):
    layers = [*linear(flux, "transformer_blocks.0."), *linear(flux, "transformer_blocks.2.")]
    export(chosen(flux, layers), tmp_path / "file", "kohya", flux)
    arguments = tomllib.loads((tmp_path / "file").read_text())["network_args"]
    assert arguments == ["train_double_block_indices=0,2", "train_single_block_indices=none"]
    assert set(read_kohya(tmp_path / "file", flux)) == set(layers)
    fewer = [name for name in layers if name != "transformer_blocks.0.attn.add_k_proj"]
    with pytest.raises(ValueError, match=r"would adapt 1 layers such as 'transformer_blocks\.0\.attn\.add_k_proj'"):
        export(chosen(flux, fewer), tmp_path / "other", "kohya", flux)


def test_a_unet_of_stable_diffusion_takes_whole_attention_blocks(unet, tmp_path):
    starts = ("down_blocks.1.attentions.0.", "mid_block.attentions.0.", "up_blocks.3.attentions.2.")
    layers = [name for start in starts for name in linear(unet, start)]
    export(chosen(unet, layers), tmp_path / "file", "kohya", unet, rank=4)
    (argument,) = tomllib.loads((tmp_path / "file").read_text())["network_args"]
    dims = [int(dim) for dim in argument.removeprefix("block_dims=").split(",")]
    assert {number: dim for number, dim in enumerate(dims) if dim} == {4: 4, 12: 4, 24: 4}
    assert len(dims) == 25
    assert set(read_kohya(tmp_path / "file", unet)) == set(layers)
    with pytest.raises(ValueError, match="would leave out 1 layers such as 'conv_in'"):
        export(chosen(unet, [*layers, "conv_in"]), tmp_path / "other", "kohya", unet)


def unet_of(channels: tuple[int, ...], down: tuple[str, ...], up: tuple[str, ...], per_block: int = 2) -> nn.Module:
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=channels,
        down_block_types=down,
        up_block_types=up,
        layers_per_block=per_block,
        attention_head_dim=2,
        cross_attention_dim=4,
        norm_num_groups=2,
        use_linear_projection=True,
    )


def test_sdxl_has_23_blocks_of_which_those_with_attention_are_chosen(tmp_path):
    crossed, plain = ("CrossAttnDownBlock2D",) * 2, ("CrossAttnUpBlock2D",) * 2
    unet = unet_of((4, 4, 4), ("DownBlock2D", *crossed), (*plain, "UpBlock2D"))
    numbers = {
        "down_blocks.1.attentions.0.": 5,  # input_blocks.4 of the authors, the first of which has the number 1
        "down_blocks.2.attentions.1.": 9,
        "mid_block.attentions.0.": 11,
        "up_blocks.0.attentions.0.": 13,
        "up_blocks.1.attentions.2.": 18,
    }
    layers = [name for start in numbers for name in linear(unet, start)]
    export(chosen(unet, layers), tmp_path / "file", "kohya", unet, rank=4)
    (argument,) = tomllib.loads((tmp_path / "file").read_text())["network_args"]
    dims = [int(dim) for dim in argument.removeprefix("block_dims=").split(",")]
    assert {number: dim for number, dim in enumerate(dims) if dim} == dict.fromkeys(numbers.values(), 4)
    assert len(dims) == 23
    assert set(read_kohya(tmp_path / "file", unet)) == set(layers)
    with pytest.raises(ValueError, match=r"would adapt 1 layers such as 'down_blocks\.1\.attentions\.0\.proj_in'"):
        export(chosen(unet, layers[1:]), tmp_path / "other", "kohya", unet)


def test_block_dims_of_another_unet_are_refused(unet, tmp_path):
    (tmp_path / "file").write_text(f'network_args = ["block_dims={",".join(["4"] * 23)}"]')
    with pytest.raises(ValueError, match="23 numbers in block_dims, 25 for this network"):
        read_kohya(tmp_path / "file", unet)


def test_a_unet_with_other_blocks_is_not_taken_for_stable_diffusion(tmp_path):
    unet = unet_of((4, 4, 4), ("CrossAttnDownBlock2D",) * 3, ("CrossAttnUpBlock2D",) * 3, per_block=1)
    with pytest.raises(ValueError, match="UNet2DConditionModel has other names"):
        export(chosen(unet, linear(unet, "mid_block.attentions.0.")), tmp_path / "file", "kohya", unet)


@pytest.fixture(scope="module")
def sd3() -> nn.Module:
    return diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        num_layers=3,
        attention_head_dim=4,
        num_attention_heads=2,
        joint_attention_dim=4,
        caption_projection_dim=8,
        pooled_projection_dim=4,
        out_channels=4,
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
    )


@pytest.mark.parametrize(
    ("parts", "arguments"),
    [
        (("",), []),
        (
            ("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out", "attn2."),
            ["context_attn_dim=0", "context_mlp_dim=0", "context_mod_dim=0", "x_mlp_dim=0", "x_mod_dim=0"],
        ),
        (
            ("attn.add_", "attn.to_add_out", "ff.", "norm1_context."),
            ["context_mlp_dim=0", "x_attn_dim=0", "x_mod_dim=0"],
        ),
    ],
    ids=["whole", "attention to the image", "mixed"],
)
def test_stable_diffusion_3_takes_parts_of_blocks(sd3, tmp_path, parts, arguments):
    layers = [name for index in (0, 2) for part in parts for name in linear(sd3, f"transformer_blocks.{index}.{part}")]
    export(chosen(sd3, layers), tmp_path / "file", "kohya", sd3, rank=4)
    content = tomllib.loads((tmp_path / "file").read_text())
    assert content["network_module"] == "networks.lora_sd3"
    assert content["network_args"] == ["train_block_indices=0,2", *arguments]
    assert set(read_kohya(tmp_path / "file", sd3)) == set(layers)


def test_stable_diffusion_3_is_refused_what_its_blocks_cannot_hold(sd3, tmp_path):
    layers = [*linear(sd3, "transformer_blocks.0."), *linear(sd3, "transformer_blocks.1.ff.")]
    with pytest.raises(ValueError, match=r"would adapt \d+ layers such as 'transformer_blocks\.1\.attn\.add_k_proj'"):
        export(chosen(sd3, layers), tmp_path / "file", "kohya", sd3)
    with pytest.raises(ValueError, match="would leave out 1 layers such as 'context_embedder'"):
        export(
            chosen(sd3, [*linear(sd3, "transformer_blocks.0."), "context_embedder"]), tmp_path / "file", "kohya", sd3
        )


def test_names_of_the_authors_of_stable_diffusion_3_and_ranges_are_read(tmp_path):
    def block() -> nn.Module:
        parts = {"attn": nn.ModuleDict({"qkv": nn.Linear(2, 6)}), "mlp": nn.ModuleDict({"fc1": nn.Linear(2, 2)})}
        return nn.ModuleDict({**parts, "adaLN_modulation": nn.Sequential(nn.SiLU(), nn.Linear(2, 2))})

    joint = nn.ModuleList(nn.ModuleDict({"context_block": block(), "x_block": block()}) for _ in range(4))
    network = nn.ModuleDict({"context_embedder": nn.Linear(2, 2), "joint_blocks": joint})
    (tmp_path / "file").write_text('network_args = ["train_block_indices=0,2-3", "x_attn_dim=0", "context_mod_dim=0"]')
    read = read_kohya(tmp_path / "file", network)
    kinds = ("context_block.attn.qkv", "context_block.mlp.fc1", "x_block.mlp.fc1", "x_block.adaLN_modulation.1")
    assert read == [f"joint_blocks.{index}.{kind}" for index in (0, 2, 3) for kind in kinds]
    export(chosen(network, read), tmp_path / "again", "kohya", network)
    assert read_kohya(tmp_path / "again", network) == read


def test_networks_that_sd_scripts_does_not_know_are_refused(tmp_path):
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    message = "names layers of Flux and of Stable Diffusion 1, 2, XL and 3 only, and Sequential"
    with pytest.raises(ValueError, match=message):
        export(chosen(network, ["0"]), tmp_path / "file", "kohya", network)


@pytest.mark.parametrize(
    ("form", "option", "message"),
    [
        ("kohya", {"bare": "skip"}, "it belongs to axolotl, peft"),
        ("diffusers", {"rank": 2}, "it belongs to axolotl, kohya, peft"),
        ("axolotl", {"rank": 0}, "`rank` must be at least 1, got 0"),
    ],
)
def test_options_that_a_format_cannot_hold_are_refused(form, option, message, unet, tmp_path):
    with pytest.raises(ValueError, match=message):
        export(chosen(unet, ["conv_in"]), tmp_path / "file", form, unet, **option)


@pytest.mark.parametrize(
    ("reader", "text", "message"),
    [
        (read_axolotl, "lora_r: 2", "cannot be read as adapters for Axolotl: KeyError"),
        (read_axolotl, "[]", "cannot be read as adapters for Axolotl: TypeError"),
        (read_kohya, "network_args = 3", "cannot be read as a network of sd-scripts"),
        (read_kohya, 'network_args = ["block_dims=a"]', "cannot be read as a network of sd-scripts"),
        (read_diffusers, "nowhere", "peft cannot apply this configuration"),
    ],
)
def test_files_of_something_else_are_refused(reader, text, message, unet, tmp_path):
    (tmp_path / "file").write_text(text)
    with pytest.raises(ValueError, match=message):
        reader(tmp_path / "file", unet)
