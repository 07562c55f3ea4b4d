"""Option names of timm, torchvision's references and Lightning, and what the app has in their place."""

import re

# the answer, and the words that it answers
ANSWERS = {
    "give nproc=N, the processes on this machine; by default every GPU that divides the batch":
        "gpus devices ngpus num_gpus nproc_per_node world_size",
    "a run takes the GPUs it finds: CUDA_VISIBLE_DEVICES= says which, nproc=N how many": "device accelerator gpu cuda",
    "for several machines start it by torchrun or scripts/slurm.sbatch, see docs/clusters.md":
        "nodes num_nodes strategy dist_url dist_backend",
    "the same command again resumes a run": "resume resume_from ckpt_path auto_resume start_epoch",
    "give optimizer.weight_decay=X": "wd decay",
    "give precision=bf16 or fp16, see docs/settings.md": "amp amp_dtype native_amp half fp16 bf16 tf32",
    "give batch.total=N, images of a step on all processes, and batch.micro=N, images of a forward pass":
        "batch_size b bs train_batch_size global_batch_size batch_size_per_gpu micro_batch_size",
    "gradients are accumulated as often as batch.total needs: give batch.micro=N":
        "accumulate_grad_batches grad_accum_steps accumulation_steps accumulation",
    "give data.workers=N": "j num_workers n_workers dataloader_num_workers",
    "give evaluate=FILE": "eval test test_only validate eval_only",
    "give model=NAME, or model=torchvision model.arch=NAME": "arch net network backbone architecture",
    "give init=FILE, or DEFAULT or another name of the library's weights":
        "pretrained weights pretrained_weights initial_checkpoint finetune load_from",
    "give data.root=DIR": "dataset data_dir data_path datadir dataset_path train_dir",
    "give epochs=N": "max_epochs num_epochs n_epochs",
    "give optimizer=lars or optimizer=sgd": "opt optim",
    "give schedule.decay=poly, cosine or step": "sched scheduler lr_scheduler lr_schedule lrs",
    "give schedule.warmup_epochs=N": "warmup lr_warmup_epochs warmup_steps",
    "give label_smoothing=X": "smoothing",
    "give ema=X, the decay per step": "model_ema model_ema_decay ema_decay",
    "give runs_dir=DIR, and name=NAME": "output output_dir save_dir default_root_dir experiment exp_name log_dir",
    "give log.every_steps=N": "log_interval print_freq log_every_n_steps log_freq",
    "give evaluate_every=N, in epochs": "check_val_every_n_epoch eval_freq val_interval",
    "give max_steps=N": "fast_dev_run limit_train_batches overfit_batches",
    "give compile=true": "torchcompile torch_compile compile_model",
    "give seed=N": "random_seed manual_seed",
    "give data.size=N": "img_size crop_size train_crop_size input_size image_size",
    "give logger=[wandb], see docs/loggers.md": "wandb log_wandb loggers mlflow tensorboard use_wandb",
    "there is none: the recipes here use none": "mixup cutmix aa auto_augment clip_grad sync_bn",
    "give 'model.options={dropout:X}' with model=torchvision, drop_rate with model=timm": "dropout drop_rate drop",
    "classes are counted in data.root; data.classes=N is for data=fractals": "num_classes n_classes nb_classes",
    "splits are folders of data.root: train, and val, valid, validation or test": "val_split train_split",
    "give data.resize=N": "val_resize_size resize_size",
    "give schedule.decay=step, schedule.milestones=[30,60,80] and schedule.factor=0.1":
        "gamma lr_gamma lr_step_size step_size decay_epochs decay_rate decay_milestones milestones",
}  # fmt: skip

BY_WORD = {word: said for said, words in ANSWERS.items() for word in words.split()}


def answer(key: str) -> str | None:
    """What to write in the place of ``key``, which the app does not have; None when the word is not known."""
    return BY_WORD.get(re.split(r"[.@/]", key)[-1].lower().replace("-", "_"))
