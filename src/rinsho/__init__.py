"""rinsho (臨床): build, adapt, evaluate and serve a small language model for Japanese clinical text."""

__version__ = "0.1.0"
