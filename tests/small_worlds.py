"""A text-to-image model of the emoji world with random weights: its sizes are real, its pictures are not."""

from dlcv_diffusion.emoji.autoencoder_training import AUTOENCODERS
from dlcv_diffusion.emoji.text_to_image_training import SCHEDULE, TEXT_TO_IMAGE
from dlcv_diffusion.models.clip.loading import SHIPPED
from dlcv_diffusion.models.clip.small import read_small_clip
from dlcv_diffusion.models.text_to_image.saving import write_pipeline


def write_small_world(folder):
    clip, autoencoder = read_small_clip(SHIPPED["emoji"]), AUTOENCODERS["tiny"].build()
    unet = TEXT_TO_IMAGE["tiny"].build((4, 16, 16), clip.config.text_width)
    write_pipeline(folder, unet, autoencoder, clip, SCHEDULE, "v", {"name": "a small world"})
    return folder
