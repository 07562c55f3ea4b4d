"""What ``--help`` says: what the program is, four commands, and what can be chosen."""

from train.config.groups import GROUPS, choices

HELP = """\
Train an image classifier with batches of up to 64k images, on as many GPUs as there are, or on a CPU.

  python train/main.py batch=32k                              small images that it makes itself
  python train/main.py batch=32k data.root=/path/to/imagenet  ImageNet, or a folder of your own, on every GPU
  python train/main.py -m batch=8k seed=0,1,2                 one run after the other, and a table of all
  python train/main.py batch=8k recipe=nus --cfg job          show what a command would run

Settings are written key=value, without dashes. These choose a set of values:
{choices}
docs/settings.md has every key; --hydra-help has Hydra's own flags."""


def help_text() -> str:
    return HELP.format(choices="\n".join(f"  {group}={'|'.join(choices(group))}" for group in GROUPS))
