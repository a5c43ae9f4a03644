"""The meaning of each event type and of each of its fields, in one sentence. JSON Schemas, AsyncAPI and docs/event-types.md show them."""

from collections.abc import Mapping
from typing import Final

MEANINGS: Final[Mapping[str, str]] = {
    "UserRegistered": "An account was created.",
    "UserProfileChanged": "The profile of a user changed.",
    "UserRoleChanged": "An administrator gave a user another role.",
    "UserStatusChanged": "An account was suspended or activated.",
    "PasswordChanged": "The password of an account changed.",
    "PasswordRehashed": "The hash of the same password was replaced by a stronger one.",
    "UserDeleted": "An account was closed.",
    "UserErased": "The data key of a user was destroyed, so the user's private fields can no longer be read.",
    "SessionStarted": "A user signed in.",
    "SessionRevoked": "A session ended before its expiry.",
    "RefreshReuseDetected": "A refresh token was used a second time; it may have been stolen.",
    "DatasetCreated": "A dataset was created.",
    "DatasetDescribed": "The name or description of a dataset changed.",
    "DatasetShared": "A user received a grant on a dataset.",
    "DatasetShareWithdrawn": "A user lost the grant on a dataset.",
    "DatasetDeleted": "A dataset was deleted; its images and results are hidden.",
    "ImageUploaded": "The file of an image was stored under its SHA-256.",
    "ImageAccepted": "The whole file of an image was decoded.",
    "ImageRejected": "The file of an image could not be decoded.",
    "ImageReinspected": "A newer reader decoded a stored image; the image is accepted, and these fields replace the earlier ones.",
    "ImageDescribed": "The file name, the device or the mark of an image changed.",
    "ImageDeleted": "An image was deleted; its results are hidden.",
    "DeviceRegistered": "A microscope or camera was registered.",
    "DeviceDescribed": "The description of a device changed.",
    "DeviceCameOnline": "A device came online. Logs of earlier releases hold one such event for each heartbeat.",
    "DeviceWentOffline": "A device went offline.",
    "DeviceRemoved": "A device was removed; its images stay.",
    "ModelVersionAdded": "A model received a new, immutable version.",
    "ModelAliasMoved": "An alias such as `production` now names another version of a model.",
    "ModelRetired": "A model accepts no new jobs; its results stay.",
    "ClassificationRequested": "A job was requested: one model version over one image or a whole dataset.",
    "ClassificationPlanned": "A part of the plan of a job was recorded, image by image.",
    "ClassificationCancelled": "A user stopped a job.",
    "ClassificationCompleted": "Every image of a job has a result or a failure.",
    "ClassificationFailed": "A job ended without any result.",
    "ClassificationDeleted": "A job was deleted; its results are hidden.",
    "ChunkJudged": "The model was run on a chunk of up to 64 images of a job.",
    "DeadLetterDiscarded": "An administrator gave up an event that could not be applied; it stays in the log, and no read model shows it.",
}

EVERY_EVENT: Final[Mapping[str, str]] = {
    "at": "Time of the event (UTC).",
    "by": "Id of the user, service or part of the system that caused the event.",
}
"""The fields of every payload."""

COMMITMENT: Final = "Commitment to the stored password hash; the hash itself is in no event."
UNCHANGED: Final = "If missing, it did not change."
CLEARED: Final = "If missing, it did not change; null means cleared."
FILE_SHA256: Final = "SHA-256 of the file in hexadecimal."
INSPECTED_SHA256: Final = "SHA-256 of the inspected file in hexadecimal; null in events of release 0.1.0."
INSPECTION: Final[Mapping[str, str]] = {
    "width": "Width in pixels.",
    "height": "Height in pixels.",
    "bands": "Number of bands of a pixel.",
    "dtype": "Number format of a band, such as `uint16`.",
    "pages": "Number of pages in the main chain of the file.",
    "axes": "Axes from slowest to fastest, such as `YXS`.",
    "pixel_size_um": "Edge of a pixel in micrometres; null if the file does not state it.",
    "reader": "Reader version that decoded the file.",
    "warnings": "What in the file was ignored, assumed or converted.",
}

FIELDS: Final[Mapping[str, Mapping[str, str]]] = {
    # ---- users and sessions
    "UserRegistered": {
        "email": "E-mail address of the user.",
        "username": "User name, chosen at registration.",
        "first_name": "First name of the user.",
        "last_name": "Last name of the user.",
        "role": "Role of the user in the installation.",
        "status": "Status of the account.",
        "password_commitment": f"{COMMITMENT} Empty in events of release 0.1.0.",
    },
    "UserProfileChanged": {
        "email": f"New e-mail address. {UNCHANGED}",
        "first_name": f"New first name. {UNCHANGED}",
        "last_name": f"New last name. {UNCHANGED}",
        "institution": f"New institution. {CLEARED}",
        "department": f"New department. {CLEARED}",
        "phone": f"New telephone number. {CLEARED}",
    },
    "UserRoleChanged": {"role": "New role of the user."},
    "UserStatusChanged": {"status": "New status of the account."},
    "PasswordChanged": {"password_commitment": f"{COMMITMENT} Empty in events of release 0.1.0."},
    "PasswordRehashed": {"password_commitment": COMMITMENT},
    "SessionStarted": {
        "user_id": "User who signed in.",
        "address": "IP address of the client.",
        "agent": "User agent of the client.",
    },
    "SessionRevoked": {"user_id": "User of the session.", "reason": "Why the session ended."},
    "RefreshReuseDetected": {"user_id": "User of the session.", "address": "IP address that sent the token again."},
    # ---- datasets
    "DatasetCreated": {
        "name": "Name of the dataset.",
        "description": "Description of the dataset; null if there is none.",
        "owner_id": "User who owns the dataset.",
    },
    "DatasetDescribed": {"name": f"New name. {UNCHANGED}", "description": f"New description. {CLEARED}"},
    "DatasetShared": {"user_id": "User who received the grant.", "grant": "Right of the user on this dataset."},
    "DatasetShareWithdrawn": {"user_id": "User who lost the grant."},
    # ---- images
    "ImageUploaded": {
        "dataset_id": "Dataset that holds the image.",
        "device_id": "Device that took the image; null if none was named.",
        "filename": "File name without folders.",
        "sha256": FILE_SHA256,
        "size": "Size of the file in bytes.",
        "media_type": "Media type of the file.",
        "width": "Width in pixels, as the file header claims.",
        "height": "Height in pixels, as the file header claims.",
        "path": "Path of the file below the uploaded folder, with `/` between its parts; null if none was sent.",
    },
    "ImageAccepted": {**INSPECTION, "sha256": INSPECTED_SHA256},
    "ImageRejected": {
        "reason": "Code of the reason.",
        "detail": "The reason in a sentence for users.",
        "sha256": INSPECTED_SHA256,
    },
    "ImageReinspected": {
        **INSPECTION,
        "outdated": "Ids of results that were computed from other pixels than this reader gives, unless an earlier event named them.",
    },
    "ImageDescribed": {
        "filename": f"New file name. {UNCHANGED}",
        "device_id": f"New device. {CLEARED}",
        "analyzed": f"Whether the image is marked as analyzed. {UNCHANGED}",
    },
    "ImageDeleted": {"dataset_id": "Dataset that held the image."},
    "ImageWarning": {"code": "Stable code of the warning.", "detail": "The warning in a sentence for users."},
    # ---- devices
    "DeviceRegistered": {
        "name": "Name of the device.",
        "hostname": "Host name of the computer that drives the device.",
        "location": "Place of the device; null if none was given.",
        "firmware_version": "Firmware version; null if none was given.",
    },
    "DeviceDescribed": {
        "name": f"New name. {UNCHANGED}",
        "hostname": f"New host name. {UNCHANGED}",
        "location": f"New place. {CLEARED}",
        "firmware_version": f"New firmware version. {CLEARED}",
    },
    # ---- models
    "ModelVersionAdded": {
        "name": "Name of the model.",
        "description": "Description of the model.",
        "version": "The version that was added.",
    },
    "Version": {
        "number": "Number of the version: 1, 2, 3, ...",
        "sha256": "SHA-256 of the weights in hexadecimal.",
        "size": "Size of the weights in bytes.",
        "labels": "Labels of the model, in the order of its scores.",
        "review_below": "Default confidence below which a result is to be reviewed.",
        "record": "Manifest of the version: its `rdf.yaml` as JSON text.",
    },
    "ModelAliasMoved": {"alias": "Name of the alias.", "number": "Number of the version that the alias now names."},
    # ---- jobs
    "ClassificationRequested": {
        "dataset_id": "Dataset that the job covers, or that held its single image.",
        "image_id": "Single image of the job; null for a whole dataset.",
        "model_id": "Model that is run.",
        "model_name": "Name of the model.",
        "model_version": "Number of the model version that is run.",
        "model_sha256": "SHA-256 of the weights in hexadecimal.",
        "threshold": "Confidence below which a result is to be reviewed.",
    },
    "ClassificationPlanned": {
        "part": "Number of this part of the plan: 0, 1, 2, ...",
        "last": "Whether this is the last part.",
        "first_chunk": "Number of the first chunk of this part; chunks are numbered through all parts.",
        "images": "Images of this part, in the order in which they are cut into chunks.",
    },
    "PlannedImage": {"id": "Id of the image.", "sha256": FILE_SHA256},
    "ClassificationCompleted": {"succeeded": "Number of images with a result.", "failed": "Number of images with a failure."},
    "ClassificationFailed": {"reason": "Why the job failed.", "failed": "Number of images with a failure."},
    "ChunkJudged": {
        "job_id": "Job to which the chunk belongs.",
        "number": "Number of the chunk in the job.",
        "dataset_id": "Dataset that the job covers, or that held its single image.",
        "model_name": "Name of the model.",
        "model_version": "Number of the model version.",
        "labels": "Labels of the model, in the order of the scores.",
        "results": "A result for each image that was classified.",
        "failures": "A failure for each image that could not be classified.",
        "provenance": "What computed the results; null if the model did not run.",
    },
    "ImageResult": {
        "image_id": "Id of the image.",
        "sha256": FILE_SHA256,
        "label": "Label with the highest score.",
        "confidence": "Score of that label, 0 to 1.",
        "verdict": "Whether the result is clear, is to be reviewed, or is out of the domain of the model.",
        "scores": "Score of each label; they add up to 1.",
        "signals": "Measures of how far the image is from the domain of the model, by name.",
        "warnings": "What in the file was ignored, assumed or converted.",
    },
    "ImageFailure": {
        "image_id": "Id of the image.",
        "reason": "Code of the reason.",
        "detail": "The reason in a sentence for users.",
    },
    "Provenance": {
        "model_sha256": "SHA-256 of the weights in hexadecimal.",
        "preprocessing": "Digest of the preprocessing.",
        "runtime": "Name and version of the library that ran the network.",
        "provider": "Execution provider of that library.",
        "decoder": "Names and versions of the libraries that decoded the images.",
        "cpu": "Model of the processor.",
        "worker": "Name of the worker.",
        "seconds": "Time that the whole chunk took.",
    },
    # ---- dead letters
    "DeadLetterDiscarded": {
        "position": "Position of the event that was given up.",
        "discarded_stream": "Stream of that event.",
        "type": "Type of that event.",
        "error": "Error with which it could not be applied.",
        "reason": "Why it was given up, in the words of the administrator.",
    },
}
"""By type, of events and of the structs in their fields."""
