from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="lcad",
    version="0.1.0",
    description="L-CAD: language-based colorization with any-level descriptions using diffusion priors",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["lcad", "lcad.*", "ldm", "ldm.*"]),
    package_data={"lcad": ["*.html", "*.json"]},
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        "pytorch-lightning>=2.6,<3",
        "diffusers>=0.35,<1",
        "transformers>=5,<6",
        "accelerate>=1.0",
        "huggingface_hub",
        "safetensors",
        "open_clip_torch>=2.24,<4",
        "omegaconf>=2.3,<3",
        "lpips>=0.1.4,<0.2",
        "scikit-image>=0.24,<1",
        "segment-anything>=1.0,<2",
        "numpy>=1.26,<3",
        "pillow>=10.3",
        "jinja2>=3",
        "matplotlib",
        "pycocotools>=2.0.8",
        "scipy",
        "opencv-python-headless>=4.9",
        "tifffile",
        "tqdm",
    ],
    extras_require={
        "dev": ["pytest>=8", "hypothesis>=6", "ruff>=0.6", "tensorboard", "selenium>=4.15"],
        "heic": ["pillow-heif"],
        "tensorboard": ["tensorboard"],
    },
)
