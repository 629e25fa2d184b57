"""The embedded world: captioned 32x32 scenes whose truth can be measured.

``vocabulary`` names what a scene may hold, ``prompts`` enumerates captions in GenEval's metadata
schema, ``renderer`` draws them, ``segmentation`` finds coloured blobs and ``gold`` measures how true
an image is to its caption. Nothing here knows about models or training.
"""
