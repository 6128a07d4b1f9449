"""The networks of packages as functions without arguments, which a command line can name."""

from ram_models.networks import realesrgan, waifu2x


def vgg7_noise1():
    return waifu2x.vgg7(1)


def vgg7_noise3():
    return waifu2x.vgg7(3)


def vgg7_grey():
    return waifu2x.vgg7(1, channels=1)


def resnet10_noise1():
    return waifu2x.resnet10(1)


def resnet10_noise2():
    return waifu2x.resnet10(2)


def upconv7_noise1():
    return waifu2x.upconv7(1)


def rrdbnet():
    return realesrgan.rrdbnet()


def rrdbnet_anime():
    return realesrgan.rrdbnet_anime()


def srvgg_x2():
    return realesrgan.srvgg(2)


def srvgg_x3():
    return realesrgan.srvgg(3)


def srvgg_x4():
    return realesrgan.srvgg(4)
