//! Where a picture lies in a tensor.
//!
//! Owns: which part of the picture is taken, to which place of the tensor it goes, and the way back. Follows Pillow's
//! `ImageOps.fit` for `fill`, torchvision's `Resize` and `CenterCrop` for `crop`, and the letter box of YOLO for `fit`.
//!
//! Must not: touch a pixel.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "sides are at most 65,535, and what is rounded is within them"
)]

use image::metadata::Orientation;

use super::spec::{Image, Resize};

/// A part of a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// Left edge.
    pub left: f64,
    /// Upper edge.
    pub top: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

/// A part of a picture (upright, in its pixels) and the place (in pixels of the tensor) that it fills.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    /// Sides of the tensor.
    pub tensor: (u32, u32),
    /// Sides of the picture.
    pub picture: (u32, u32),
    /// What is taken of it.
    pub part: Part,
    /// Left and upper edge of the place.
    pub at: (u32, u32),
    /// Sides of the place.
    pub size: (u32, u32),
}

impl Frame {
    /// Where a picture with these sides goes.
    pub fn of(spec: &Image, picture: (u32, u32)) -> Self {
        let (w, h) = (f64::from(picture.0), f64::from(picture.1));
        let (width, height) = (f64::from(spec.width), f64::from(spec.height));
        let whole = Part {
            left: 0.0,
            top: 0.0,
            width: w,
            height: h,
        };
        let mut frame = Self {
            tensor: (spec.width, spec.height),
            picture,
            part: whole,
            at: (0, 0),
            size: (spec.width, spec.height),
        };
        match spec.resize {
            Resize::Stretch => {}
            Resize::Fit => {
                let scale = (width / w).min(height / h);
                let side = |from: f64, most: u32| ((from * scale).round() as u32).clamp(1, most);
                frame.size = (side(w, spec.width), side(h, spec.height));
                frame.at = (
                    (spec.width - frame.size.0) / 2,
                    (spec.height - frame.size.1) / 2,
                );
            }
            Resize::Fill => frame.part = middle(whole, width, height),
            Resize::Crop => {
                let shorter = spec.shorter_side.unwrap_or(spec.width.max(spec.height));
                frame.part = cropped(whole, f64::from(shorter), width, height);
            }
        }
        frame
    }

    /// A tensor that no picture is behind.
    pub fn none(spec: &Image) -> Self {
        let sides = Image {
            resize: Resize::Stretch,
            ..spec.clone()
        };
        Self::of(&sides, (spec.width, spec.height))
    }

    /// Where in the picture a place of the tensor is; within its edges.
    pub fn back(&self, x: f64, y: f64) -> (f64, f64) {
        let one = |it: f64, at: u32, size: u32, from: f64, length: f64, side: u32| {
            let there = from + (it - f64::from(at)) * length / f64::from(size);
            there.clamp(0.0, f64::from(side))
        };
        let part = &self.part;
        let (width, height) = self.picture;
        (
            one(x, self.at.0, self.size.0, part.left, part.width, width),
            one(y, self.at.1, self.size.1, part.top, part.height, height),
        )
    }

    /// The part as it is in the picture's own pixels, before it is turned upright.
    pub fn stored_part(&self, turn: Orientation) -> Part {
        let (w, h) = (f64::from(self.picture.0), f64::from(self.picture.1));
        let it = self.part;
        let right = w - it.left - it.width;
        let below = h - it.top - it.height;
        let part = |left, top| Part { left, top, ..it };
        let turned = |left, top| Part {
            left,
            top,
            width: it.height,
            height: it.width,
        };
        match turn {
            Orientation::NoTransforms => it,
            Orientation::FlipHorizontal => part(right, it.top),
            Orientation::FlipVertical => part(it.left, below),
            Orientation::Rotate180 => part(right, below),
            Orientation::Rotate90 => turned(it.top, right),
            Orientation::Rotate270 => turned(below, it.left),
            Orientation::Rotate90FlipH => turned(it.top, it.left),
            Orientation::Rotate270FlipH => turned(below, right),
        }
    }
}

/// Whether it changes width and height.
pub fn lies_on_its_side(turn: Orientation) -> bool {
    matches!(
        turn,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}

/// The largest part in the middle with these proportions.
fn middle(whole: Part, width: f64, height: f64) -> Part {
    let (w, h) = (whole.width, whole.height);
    let (width, height) = match w * height >= h * width {
        true => (h * width / height, h),
        false => (w, w * height / width),
    };
    Part {
        left: (w - width) / 2.0,
        top: (h - height) / 2.0,
        width,
        height,
    }
}

/// What is in the middle once the shorter side is `shorter`.
fn cropped(whole: Part, shorter: f64, width: f64, height: f64) -> Part {
    let (w, h) = (whole.width, whole.height);
    // torchvision cuts off the fraction of the longer side, and rounds the edge to the even pixel.
    let (wide, high) = match w <= h {
        true => (shorter, (shorter * h / w).floor()),
        false => ((shorter * w / h).floor(), shorter),
    };
    let edge = |side: f64, wanted: f64| ((side - wanted) / 2.0).round_ties_even();
    Part {
        left: edge(wide, width) * w / wide,
        top: edge(high, height) * h / high,
        width: width * w / wide,
        height: height * h / high,
    }
}
