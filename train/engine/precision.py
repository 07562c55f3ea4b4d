"""The precision of a forward pass: bf16, fp16, tf32 or fp32, what the device does natively, and fp16's loss scale."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch.amp import GradScaler

from train.errors import UserError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}  # the others compute in fp32, tf32 with rounded factors


@dataclass(frozen=True)
class Precision:
    """A forward pass on ``device`` in ``dtype``, wherever autocast supports it; weights and gradients are fp32."""

    device: torch.device
    dtype: torch.dtype = torch.float32

    @classmethod
    def named(cls, name: str, device: torch.device) -> "Precision":
        """``bf16``, ``fp16``, ``tf32`` or ``fp32``."""
        return cls(device, DTYPES.get(name, torch.float32))

    def autocast(self) -> torch.autocast | nullcontext[None]:
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device.type, self.dtype)

    def scaler(self) -> GradScaler:
        """Multiplies the loss so that no fp16 gradient underflows, and gradients back; without fp16 it does nothing.

        It begins with 2^16. A step with a gradient that overflows is skipped and halves the scale, and 2,000 steps
        without one double it (Micikevicius et al. 2018, arXiv 1710.03740, section 3.2; torch's defaults).
        """
        return GradScaler(self.device.type, enabled=self.dtype == torch.float16)


def native_precision(device: torch.device) -> str:
    """``bf16`` where ``device`` computes in it natively, else ``fp32``."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if hasattr(torch.cpu, "get_capabilities"):
        has = torch.cpu.get_capabilities()
        native = has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16")
    else:
        # torch before 2.10
        native = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return "bf16" if native else "fp32"


def check_precision(name: str, device: torch.device) -> None:
    """Raise UserError where ``device`` lacks the precision; bf16 and fp16 are computed everywhere, if slowly."""
    if name == "tf32" and (device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0)):
        raise UserError("precision=tf32 needs an NVIDIA GPU of compute capability 8.0 (A100) or newer: give fp32")


def describe_device(name: str, device: torch.device) -> str:
    """What a process runs on, and what the reader of the log must know of it at the precision ``name``."""
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"CPU, {threads} thread{'s' if threads > 1 else ''} a process: torch finds no NVIDIA GPU"
    said = [
        torch.cuda.get_device_name(device),
        "this program has no record of a run on a GPU yet (scripts/gpu_check.py makes one)",
    ]
    # Volta's are the first, Ampere's the first that know bf16 and TF32
    if name == "fp32" and torch.cuda.get_device_capability(device) >= (7, 0):
        newer = torch.cuda.get_device_capability(device) >= (8, 0)
        said.append(f"fp32 LEAVES ITS TENSOR CORES IDLE: give precision={'bf16' if newer else 'fp16'}")
    return "; ".join(said)


def set_up_cuda(name: str) -> None:
    """Let cuDNN choose its algorithms, which pays because shapes hardly change; fp32 becomes TF32 only by that name."""
    if torch.cuda.is_available():
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
