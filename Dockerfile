# The app with all that it needs, for NVIDIA GPUs and CPUs; not built yet.
#
#   docker build -t lars-imagenet .
#   docker run --rm --gpus all --ipc=host -v /path/to/imagenet:/data:ro -v "$PWD/runs:/app/runs" \
#       -v lars-imagenet-cache:/root/.cache lars-imagenet batch=32k data.root=/data
#
# --ipc=host: decoded batches travel through /dev/shm, of which a container has 64 MB. Without GPUs leave out --gpus. The
# volume keeps the index of read-only images, drawn fractals and downloaded weights, which --rm would delete.
FROM python:3.11-slim

# a compiler for compile=true; git, by which a run records its commit
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc g++ git \
    && rm -rf /var/lib/apt/lists/* \
    && git config --system --add safe.directory /app

WORKDIR /app
COPY . .
# the versions that the tests have run with; torch's wheels bring CUDA's libraries, and the driver is the host's
RUN pip install --no-cache-dir torch==2.14.1 torchvision==0.29.1 -e '.[archives]'
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENTRYPOINT ["python", "train/main.py"]
