//! GGUF files put together byte by byte: what a hostile file says is what a test must control.

/// A GGUF file in the making. What is put in is not checked.
#[derive(Clone, Debug)]
pub struct GgufBuilder {
    version: u32,
    pairs: Vec<Vec<u8>>,
    tensors: Vec<Declared>,
    data: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Declared {
    name: String,
    dims: Vec<u64>,
    number: u32,
    offset: u64,
}

impl Default for GgufBuilder {
    fn default() -> Self {
        GgufBuilder { version: 3, pairs: Vec::new(), tensors: Vec::new(), data: Vec::new() }
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// An array's value: element type, count, elements.
fn array(element: u32, items: impl ExactSizeIterator<Item = Vec<u8>>) -> Vec<u8> {
    let mut bytes = [&element.to_le_bytes()[..], &(items.len() as u64).to_le_bytes()].concat();
    items.for_each(|item| bytes.extend(item));
    bytes
}

impl GgufBuilder {
    /// Another version than 3.
    #[must_use]
    pub fn version(mut self, version: u32) -> Self {
        self.version = version;
        self
    }

    /// A pair whose value has that type number and these bytes.
    #[must_use]
    pub fn pair(mut self, key: &str, number: u32, value: &[u8]) -> Self {
        self.pairs.push([&text(key), &number.to_le_bytes()[..], value].concat());
        self
    }

    /// Without the pairs whose key starts so.
    #[must_use]
    pub fn without(mut self, prefix: &str) -> Self {
        self.pairs.retain(|pair| !pair[8..].starts_with(prefix.as_bytes()));
        self
    }

    /// A text.
    #[must_use]
    pub fn text(self, key: &str, value: &str) -> Self {
        self.pair(key, 8, &text(value))
    }

    /// A number.
    #[must_use]
    pub fn u32(self, key: &str, value: u32) -> Self {
        self.pair(key, 4, &value.to_le_bytes())
    }

    /// A number.
    #[must_use]
    pub fn f32(self, key: &str, value: f32) -> Self {
        self.pair(key, 6, &value.to_le_bytes())
    }

    /// True or false.
    #[must_use]
    pub fn flag(self, key: &str, value: bool) -> Self {
        self.pair(key, 7, &[u8::from(value)])
    }

    /// An array of texts.
    #[must_use]
    pub fn texts(self, key: &str, values: &[&str]) -> Self {
        self.pair(key, 9, &array(8, values.iter().map(|value| text(value))))
    }

    /// An array of numbers.
    #[must_use]
    pub fn i32s(self, key: &str, values: &[i32]) -> Self {
        self.pair(key, 9, &array(5, values.iter().map(|value| value.to_le_bytes().to_vec())))
    }

    /// An array of numbers.
    #[must_use]
    pub fn f32s(self, key: &str, values: &[f32]) -> Self {
        self.pair(key, 9, &array(6, values.iter().map(|value| value.to_le_bytes().to_vec())))
    }

    /// A tensor of that GGML type, its shape outermost dimension first, behind those before.
    #[must_use]
    pub fn tensor(mut self, name: &str, shape: &[usize], number: u32, data: &[u8]) -> Self {
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        let offset = self.data.len() as u64;
        self.data.extend(data);
        let dims: Vec<u64> = shape.iter().rev().map(|&dim| dim as u64).collect();
        self.declare(name, &dims, number, offset)
    }

    /// A tensor of single-precision values.
    #[must_use]
    pub fn f32_tensor(self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.tensor(name, shape, 0, &data)
    }

    /// A line of the tensor table without data of its own, dimensions innermost first.
    #[must_use]
    pub fn declare(mut self, name: &str, dims: &[u64], number: u32, offset: u64) -> Self {
        self.tensors.push(Declared { name: name.to_owned(), dims: dims.to_vec(), number, offset });
        self
    }

    /// The file.
    pub fn build(&self) -> Vec<u8> {
        let mut file = [&b"GGUF"[..], &self.version.to_le_bytes()].concat();
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.pairs.len() as u64).to_le_bytes());
        file.extend(self.pairs.concat());
        for Declared { name, dims, number, offset } in &self.tensors {
            file.extend(text(name));
            file.extend((dims.len() as u32).to_le_bytes());
            dims.iter().for_each(|dim| file.extend(dim.to_le_bytes()));
            file.extend(number.to_le_bytes());
            file.extend(offset.to_le_bytes());
        }
        file.resize(file.len().next_multiple_of(32), 0);
        [file, self.data.clone()].concat()
    }

    /// A whole model of one layer with architecture `llama` or `qwen2`: 8 values wide, two heads of 4 over one of
    /// keys, 6 values in the feed-forward, 5 tokens, a tied head, a byte-level tokenizer. No two values are equal.
    #[must_use]
    pub fn tiny(architecture: &str) -> Self {
        let key = |suffix: &str| format!("{architecture}.{suffix}");
        let mut file = GgufBuilder::default()
            .text("general.architecture", architecture)
            .u32(&key("context_length"), 16)
            .u32(&key("embedding_length"), 8)
            .u32(&key("feed_forward_length"), 6)
            .u32(&key("block_count"), 1)
            .u32(&key("attention.head_count"), 2)
            .u32(&key("attention.head_count_kv"), 1)
            .f32(&key("attention.layer_norm_rms_epsilon"), 1e-5)
            .f32(&key("rope.freq_base"), 500.0)
            .text("tokenizer.ggml.model", "gpt2")
            .text("tokenizer.ggml.pre", "smollm")
            .texts("tokenizer.ggml.tokens", &["<|end|>", "a", "b", "ab", "Ġ"])
            .i32s("tokenizer.ggml.token_type", &[3, 1, 1, 1, 1])
            .texts("tokenizer.ggml.merges", &["a b"])
            .u32("tokenizer.ggml.eos_token_id", 0);
        let block = [
            ("attn_norm.weight", &[8][..]),
            ("attn_q.weight", &[8, 8]),
            ("attn_k.weight", &[4, 8]),
            ("attn_v.weight", &[4, 8]),
            ("attn_output.weight", &[8, 8]),
            ("ffn_norm.weight", &[8]),
            ("ffn_gate.weight", &[6, 8]),
            ("ffn_up.weight", &[6, 8]),
            ("ffn_down.weight", &[8, 6]),
        ];
        let biases = [("attn_q.bias", &[8][..]), ("attn_k.bias", &[4]), ("attn_v.bias", &[4])];
        let biases = biases.iter().filter(|_| architecture == "qwen2");
        let mut tensors: Vec<(String, &[usize])> =
            block.iter().chain(biases).map(|(name, shape)| (format!("blk.0.{name}"), *shape)).collect();
        tensors.push(("token_embd.weight".to_owned(), &[5, 8]));
        tensors.push(("output_norm.weight".to_owned(), &[8]));
        for (number, (name, shape)) in tensors.iter().enumerate() {
            file = file.f32_tensor(name, shape, &tiny_values(number, shape.iter().product()));
        }
        file
    }
}

/// The values of the `number`-th tensor of a tiny model.
fn tiny_values(number: usize, elements: usize) -> Vec<f32> {
    (0..elements).map(|at| (number * 1000 + at) as f32 * 0.25 - 7.0).collect()
}
