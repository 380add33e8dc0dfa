"""What pyproject.toml cannot say: the wheel carries nas.yaml and configs/, which lie at the root of the checkout."""

from pathlib import Path
from shutil import copyfile

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent


class BuildWithSettings(build_py):
    """Copies the settings of the shipped studies into the built package, not into the checkout."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if self.editable_mode:
            return
        for file in (ROOT / "nas.yaml", *(ROOT / "configs").glob("*.yaml")):
            target = Path(self.build_lib) / "mammosearch" / "shipped" / file.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            copyfile(file, target)


setup(cmdclass={"build_py": BuildWithSettings})
