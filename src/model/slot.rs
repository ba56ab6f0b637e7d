//! The places of an architecture that hold tensors, and how a checkpoint names them.

/// A place that holds a weight, and a bias where the architecture has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// Token vectors, `[V, width]`.
    TokenEmbedding,
    /// Position vectors.
    PositionEmbedding,
    /// Token-type vectors.
    TokenTypeEmbedding,
    /// The normalisation of the embedding.
    EmbeddingNorm,
    /// From token vectors to the residual stream.
    ProjectIn,
    /// From the residual stream to token vectors.
    ProjectOut,
    /// The normalisation of a block's attention layer.
    AttentionNorm,
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
    /// Queries, keys and values in one tensor.
    QueryKeyValue,
    /// The output projection of attention.
    AttentionOut,
    /// The normalisation of a block's feed-forward layer.
    FfnNorm,
    /// The gate of a gated feed-forward layer.
    Gate,
    /// The first product of a feed-forward layer.
    Up,
    /// The last product of a feed-forward layer.
    Down,
    /// The normalisation after the last block.
    LastNorm,
    /// The dense layer of a masked-LM head.
    MaskedDense,
    /// The normalisation of a masked-LM head.
    MaskedNorm,
    /// The matrix of a language-model head.
    Head,
    /// The dense layer of a classifier.
    ClassDense,
    /// The last product of a classifier.
    Classes,
    /// What holds the bias of a masked-LM head.
    HeadBias,
}

/// A family's names: the module of each slot, `{}` standing for the number of the block.
pub type Names = &'static [(Slot, &'static str)];

/// Names of tensors as one checkpoint spells them.
pub struct Tensors<F> {
    names: Names,
    exists: F,
}

impl<F: Fn(&str) -> bool> Tensors<F> {
    /// The names of a family, and whether the checkpoint has a tensor of a name.
    pub fn new(names: Names, exists: F) -> Self {
        Tensors { names, exists }
    }

    /// The name of the weight of `slot` (in block `layer`).
    pub fn weight(&self, slot: Slot, layer: usize) -> String {
        self.spelled(slot, layer, "weight", "gamma")
    }

    /// The name of the bias of `slot` (in block `layer`).
    pub fn bias(&self, slot: Slot, layer: usize) -> String {
        self.spelled(slot, layer, "bias", "beta")
    }

    /// The spelling that exists, else the usual one: bare encoders and decoders are saved without the first part
    /// of their names (`bert.`, `model.`, `transformer.`), and the oldest checkpoints have TensorFlow's words for
    /// the parameters of a normalisation.
    fn spelled(&self, slot: Slot, layer: usize, usual: &str, old: &str) -> String {
        let module = self.names.iter().find(|(of, _)| *of == slot).map(|(_, module)| *module);
        let module = module.unwrap_or_else(|| panic!("the family names no {slot:?}")).replace("{}", &layer.to_string());
        let bare = module.split_once('.').map_or(module.as_str(), |(_, rest)| rest);
        let spellings = [(&*module, usual), (bare, usual), (&*module, old), (bare, old)];
        let found =
            spellings.map(|(module, part)| format!("{module}.{part}")).into_iter().find(|name| (self.exists)(name));
        found.unwrap_or_else(|| format!("{module}.{usual}"))
    }
}
