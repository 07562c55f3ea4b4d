"""The application: configs -> data, model, optimizer, schedule -> loop -> log, checkpoint -> results."""
