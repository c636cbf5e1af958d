//! Wrong input and hostile peers: each is refused with an error and a counter of its own, and changes
//! nothing. Names begin with the number of the row of the acceptance matrix where there is one.

mod check;
mod content;
