//! An input as edits of a sound file, for formats that random bytes do not reach.

/// The first byte chooses one of `sound` or none, the second how many edits follow; an edit is two bytes of place,
/// the bytes to remove and the bytes to insert. Gives the edited file and what is left of the input.
pub fn edited<'a>(sound: &[&[u8]], input: &'a [u8]) -> (Vec<u8>, &'a [u8]) {
    let &[choice, count, ref rest @ ..] = input else { return (Vec::new(), input) };
    let Some(file) = sound.get(usize::from(choice) % (sound.len() + 1)) else {
        let (file, rest) = rest.split_at(rest.len() - rest.len() / 4);
        return (file.to_vec(), rest);
    };
    let (mut file, mut rest) = (file.to_vec(), rest);
    for _ in 0..count % 8 {
        let &[low, high, removed, inserted, ref after @ ..] = rest else { break };
        let (new, after) = after.split_at(usize::from(inserted % 64).min(after.len()));
        let at = usize::from(u16::from_le_bytes([low, high])) % (file.len() + 1);
        let end = file.len().min(at + usize::from(removed % 64));
        file.splice(at..end, new.iter().copied());
        rest = after;
    }
    (file, rest)
}
