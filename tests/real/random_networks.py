"""Networks of many kinds with random weights, each as its library builds it from a configuration."""

import torch
import torch.nn.functional as F
from torch import nn


class UNet(nn.Module):
    """Two levels with skips, as published in 2015, with padding."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2 = self._double(3, 8), self._double(8, 16)
        self.middle = self._double(16, 32)
        self.up2, self.up1 = nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)
        self.merge2, self.merge1 = self._double(32, 16), self._double(16, 8)
        self.last = nn.Conv2d(8, 3, 1)

    @staticmethod
    def _double(before, after):
        layers = [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(True), nn.Conv2d(after, after, 3, padding=1)]
        return nn.Sequential(*layers, nn.ReLU(True))

    def forward(self, image):
        first = self.down1(image)
        second = self.down2(F.max_pool2d(first, 2))
        x = self.up2(self.middle(F.max_pool2d(second, 2)))
        x = self.up1(self.merge2(torch.cat([second, x], 1)))
        return image + self.last(self.merge1(torch.cat([first, x], 1)))


class Recurrent(nn.Module):
    """PReNet's scheme: the same layers four times, with a state; all estimates are returned, the last one first."""

    def __init__(self):
        super().__init__()
        self.enter = nn.Conv2d(6, 8, 3, padding=1)
        self.gate, self.state = nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)
        self.leave = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, image):
        estimate, hidden, estimates = image, image.new_zeros(len(image), 8, *image.shape[2:]), []
        for _ in range(4):
            x = torch.cat([self.enter(torch.cat([image, estimate], 1)).relu(), hidden], 1)
            gate = self.gate(x).sigmoid()
            hidden = gate * hidden + (1 - gate) * self.state(x).tanh()
            estimate = image + self.leave(hidden)
            estimates.append(estimate)
        return estimate, estimates


class SuperResolution(nn.Module):
    """ESPCN: convolutions at low resolution, then pixels from channels."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 5, padding=2), nn.Tanh(), nn.Conv2d(16, 8, 3, padding=1), nn.Tanh()
        )
        self.last = nn.Conv2d(8, 12, 3, padding=1)

    def forward(self, image):
        return F.pixel_shuffle(self.last(self.features(image)), 2)


class DnCNN(nn.Module):
    """A chain of convolutions and norms that estimates the noise of a grey image."""

    def __init__(self):
        super().__init__()
        blocks = [[nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(True)] for _ in range(3)]
        layers = [layer for block in blocks for layer in block]
        self.model = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(True), *layers, nn.Conv2d(12, 1, 3, padding=1)
        )

    def forward(self, image):
        return image - self.model(image)


def unet():
    return UNet().eval()


def recurrent():
    return Recurrent().eval()


def super_resolution():
    return SuperResolution().eval()


def dncnn():
    return DnCNN().eval()


VISION = {"image_size": 32, "patch_size": 4, "num_channels": 3}
TRANSFORMER = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def swin2sr():
    from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution

    config = Swin2SRConfig(image_size=24, embed_dim=12, depths=[2, 2], num_heads=[2, 2], window_size=4, upscale=2)
    return Swin2SRForImageSuperResolution(config).eval()


def swin_masked():
    from transformers import SwinConfig, SwinForMaskedImageModeling

    config = SwinConfig(**VISION, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=4, encoder_stride=8)
    return SwinForMaskedImageModeling(config).eval()


def vit_masked():
    from transformers import ViTConfig, ViTForMaskedImageModeling

    return ViTForMaskedImageModeling(ViTConfig(**VISION, **TRANSFORMER, encoder_stride=4)).eval()


def vit_classifier():
    from transformers import ViTConfig, ViTForImageClassification

    return ViTForImageClassification(ViTConfig(**VISION, **TRANSFORMER, num_labels=5)).eval()


def bert_masked():
    from transformers import BertConfig, BertForMaskedLM

    return BertForMaskedLM(BertConfig(vocab_size=50, max_position_embeddings=16, **TRANSFORMER)).eval()


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(vocab_size=50, max_position_embeddings=16, **TRANSFORMER)).eval()


def unet2d_condition():
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=4,
    ).eval()
