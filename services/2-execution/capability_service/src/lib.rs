//! Who holds which right on which object.
