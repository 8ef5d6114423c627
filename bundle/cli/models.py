"""``bundle models``: the model files to choose from."""

import typer


def models() -> None:
    """List the model files."""
    from bundle.config.files import file_names  # imported late: `bundle --help` needs no model files
    from bundle.config.model_files import model_file

    for known in file_names("models"):
        typer.echo(f"{known}  {model_file(known).description}")
