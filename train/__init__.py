"""The application: configs -> data, model, optimizer, schedule -> loop -> log, checkpoint -> results."""

__version__ = "0.2.0.dev0"
