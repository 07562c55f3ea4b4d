"""The layouts in which people keep ImageNet: how each is recognised and how its images are listed.

Nothing is extracted and no image is read: in an archive only the headers between the images are.
"""
