"""Conversions between image messages and frames. A copy is made only where a message must own its bytes."""

from __future__ import annotations

from array import array

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from edge_vision.core.compressed import compressed_frame
from edge_vision.core.frame import ENCODINGS, MAX_PIXELS, Frame, check_size, view_image
from edge_vision.core.stamp_check import stamp_to_ns
from edge_vision.errors import ImageError
from edge_vision.nodes.interface.headers import header_of

JPEG_QUALITY = 80


def frame_from_message(message: Image | CompressedImage, seq: int, max_pixels: float = MAX_PIXELS) -> Frame:
    """The frame of an image message, as a view of its bytes. Raises ImageError with a reason.

    A compressed image is decoded when its pixels are first read, which may then raise
    ImageError(corrupt_image).
    """
    stamp_ns = stamp_to_ns(message.header.stamp)
    frame_id = message.header.frame_id
    if isinstance(message, CompressedImage):
        return compressed_frame(message.data, message.format, stamp_ns, frame_id, seq, message, max_pixels)
    if message.encoding in ENCODINGS:
        encoding = message.encoding
        size = message.width, message.height, message.step
        image = view_image(message.data, *size, encoding, bool(message.is_bigendian), max_pixels)
    else:
        check_size(message.width, message.height, max_pixels)
        image, encoding = _with_cv_bridge(message), "bgr8"
    return Frame(image, stamp_ns, frame_id, encoding, seq, message)


def _with_cv_bridge(message: Image) -> np.ndarray:
    """(h, w, 3) uint8 BGR of a rare encoding, converted by cv_bridge if it is installed."""
    try:
        from cv_bridge import CvBridge

        return CvBridge().imgmsg_to_cv2(message, "bgr8")
    except ImportError:
        reason = "and cv_bridge is not installed"
    except Exception as error:  # cv_bridge raises many types of errors about the image.
        reason = f"and cv_bridge cannot convert it: {error}"
    raise ImageError(
        "unsupported_encoding",
        f"encoding '{message.encoding}' is not supported, {reason}. Publish one of {', '.join(ENCODINGS)}",
    )


def jpeg_message(frame: Frame) -> CompressedImage:
    """The frame as JPEG, in the form of image_transport."""
    _, data = cv2.imencode(".jpg", frame.bgr(), (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    header, form = header_of(frame.stamp_ns, frame.frame_id), "bgr8; jpeg compressed bgr8"
    return CompressedImage(header=header, format=form, data=array("B", data.tobytes()))


class ImageWriter:
    """Converts frames to Image messages. It reuses one message: publish it before the next call."""

    def __init__(self) -> None:
        self._message = Image()
        self._bytes = np.zeros(0, np.uint8)

    def message(self, frame: Frame) -> Image:
        """The message that the frame was received in, otherwise the reused one."""
        if isinstance(frame.origin, Image):
            return frame.origin
        image = frame.image
        self._reserve(image.nbytes)
        np.copyto(self._bytes.view(image.dtype).reshape(image.shape), image)
        message = self._message
        message.header = header_of(frame.stamp_ns, frame.frame_id)
        message.height, message.width = frame.height_px, frame.width_px
        message.encoding = frame.encoding
        message.step = image.nbytes // image.shape[0]
        message.is_bigendian = 0
        return message

    def _reserve(self, nbytes: int) -> None:
        """Resize the message's data. Only an array('B') is assigned without a check of every byte."""
        if self._bytes.nbytes != nbytes:
            self._message.data = array("B", bytes(nbytes))
            # Some releases of rclpy keep the array, others copy it: write to the message's own buffer.
            self._bytes = np.frombuffer(self._message.data, np.uint8)
