"""Augmentation: what happens to a recording between camera and viewer, alike for real and fake.

`faces`, `voice` and `mouths` are cheap and run on every item; `codecs` sends crops, sound or whole files through real
encoders. A treatment is drawn first, whole, and applied then: it never depends on the item, so two items
with equal generators (a fake and its original) go through equal operations, and no operation tells the label.
"""
