"""Networks of transformers as they come, with random weights: no wrapper, no download."""

import pytest
import torch

import macattr

transformers = pytest.importorskip("transformers")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
IDS = torch.arange(4, 22).reshape(2, 9)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def swin_mim():
    config = transformers.SwinConfig(
        image_size=32, patch_size=2, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4, encoder_stride=4
    )
    return transformers.SwinForMaskedImageModeling(config).eval()


def vit_mim():
    config = transformers.ViTConfig(image_size=16, patch_size=4, encoder_stride=4, **SMALL)
    return transformers.ViTForMaskedImageModeling(config).eval()


def vit():
    return transformers.ViTForImageClassification(
        transformers.ViTConfig(image_size=16, patch_size=4, num_labels=5, **SMALL)
    ).eval()


def bert():
    config = transformers.BertConfig(vocab_size=40, max_position_embeddings=32, **SMALL)
    return transformers.BertForMaskedLM(config).eval()


def llama():
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=40, **SMALL)).eval()


def swin2sr():
    config = transformers.Swin2SRConfig(
        image_size=16, patch_size=1, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=4, upscale=2
    )
    return transformers.Swin2SRForImageSuperResolution(config).eval()


def residual(importance) -> float:
    return float(abs(importance.dataset["input_residual"]).max())


@pytest.mark.parametrize("objective", [None, "masked_loss"])
def test_the_model_s_own_mask_fades_away(objective):
    path = macattr.TokenMaskPath(r=0.6)
    inputs = {"pixel_values": torch.rand(1, 3, 32, 32)}
    found = macattr.rank_layers(swin_mim(), inputs, path=path, objective=objective, n_steps=199)
    assert found.dataset.attrs["at"] == "the model's own mask 'bool_masked_pos'"
    assert residual(found) < 0.02


def test_the_masked_loss_is_the_model_s_own():
    network, pixels = swin_mim(), torch.rand(1, 3, 32, 32)
    mask = torch.rand(1, 256) > 0.5
    inputs = {"pixel_values": pixels, "bool_masked_pos": mask}
    found = macattr.rank_layers(network, inputs, path=macattr.TokenMaskPath(0.5), objective="masked_loss", n_steps=10)
    own = network(pixels, bool_masked_pos=mask).loss
    torch.testing.assert_close(
        torch.tensor(found.dataset["objective_start"].item(), dtype=own.dtype), own, rtol=1e-5, atol=0
    )


def test_a_vision_transformer_hides_patches_too():
    found = macattr.rank_layers(
        vit_mim(), torch.rand(1, 3, 16, 16), path="tokens", objective="masked_loss", n_steps=199
    )
    assert residual(found) < 0.05  # random weights: 16 patches, embeddings of 0.02 before a layer norm


def test_masked_words_fade_in():
    path = macattr.TokenMaskPath(r=0.6, token=3)
    inputs = transformers.BatchEncoding({"input_ids": IDS, "attention_mask": torch.ones_like(IDS)})
    found = macattr.rank_layers(
        bert(), inputs, path=path, at="bert.embeddings.word_embeddings", objective="masked_loss", n_steps=199
    )
    assert residual(found) < 0.02


@pytest.mark.parametrize("make", [bert, llama])
def test_texts_with_labels_use_the_model_s_own_loss(make):
    inputs = {"input_ids": IDS, "labels": IDS}
    found = macattr.rank_methods(
        make(), inputs, ["conductance", "fisher", "snr", "magnitude"], objective="loss", n_steps=150
    )
    assert found["conductance"].dataset.attrs["output"] == found["fisher"].dataset.attrs["loss"] + " loss"
    if make is bert:  # from an embedding of 0, a root mean square norm without positions jumps
        assert residual(found["conductance"]) < 0.02


def test_images_with_labels_are_explained_by_class():
    loader = [(torch.rand(3, 16, 16), 2), (torch.rand(3, 16, 16), 4)]
    found = macattr.rank_methods(vit(), loader, ["mac", "conductance", "fisher", "rgn"], objective="class")
    assert found["mac"].dataset.attrs["output"] == "the only tensor, 'logits'"


def test_super_resolution_takes_pairs():
    pairs = [{"pixel_values": torch.rand(3, 16, 16), "clean": torch.rand(3, 32, 32)}]
    found = macattr.rank_methods(swin2sr(), pairs, ["mac", "mac_loss", "fisher"], n_steps=10, groups=1)
    assert found["mac"].dataset.attrs["output"] == "the only tensor, 'reconstruction'"


def t5():
    config = {"vocab_size": 40, "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**config, decoder_start_token_id=0)).eval()


def t5_encoder():
    config = {"vocab_size": 40, "d_model": 16, "d_kv": 4, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    return transformers.T5EncoderModel(transformers.T5Config(**config)).eval()


def bart():
    heads = {f"{part}_attention_heads": 2 for part in ("encoder", "decoder")}
    sizes = {
        f"{part}_{name}": size for part in ("encoder", "decoder") for name, size in (("layers", 1), ("ffn_dim", 32))
    }
    config = transformers.BartConfig(vocab_size=40, d_model=16, max_position_embeddings=32, **heads, **sizes)
    return transformers.BartForConditionalGeneration(config).eval()


@pytest.mark.parametrize("make", [t5, bart])
def test_an_encoder_with_a_decoder_walks_the_encoder_s_embeddings(make):
    network = make()
    found = macattr.rank_layers(network, {"input_ids": IDS, "labels": IDS}, "conductance", objective="loss", n_steps=4)
    assert "embed_tokens" in found.dataset.attrs["at"]
    assert any(layer.startswith(("decoder.", "model.decoder.")) for layer in found.dataset["layer"].to_numpy())


def test_an_encoder_alone_walks_its_own_embeddings():
    found = macattr.rank_layers(t5_encoder(), {"input_ids": IDS}, "conductance", objective="norm", n_steps=4)
    assert "encoder.embed_tokens" in found.dataset.attrs["at"]


def test_a_decoder_without_input_is_explained():  # that of Bart takes the encoder's
    with pytest.raises(ValueError, match=r"its decoder has no input\. Add `decoder_input_ids`, or `labels`"):
        macattr.rank_layers(t5(), {"input_ids": IDS}, "conductance", objective="norm")


def test_a_network_that_hooks_itself_collects_its_stages_once():
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 8],
        depths=[1, 1],
        num_encoder_blocks=2,
        sr_ratios=[2, 1],
        patch_sizes=[3, 3],
        strides=[2, 2],
        num_attention_heads=[1, 1],
        mlp_ratios=[2, 2],
        decoder_hidden_size=8,
    )
    network = transformers.SegformerForSemanticSegmentation(config).eval()
    found = macattr.rank_layers(network, torch.rand(1, 3, 32, 32), "conductance", objective="norm", n_steps=4)
    assert "decode_head.linear_projections.1.proj" in found.dataset["layer"].to_numpy()
