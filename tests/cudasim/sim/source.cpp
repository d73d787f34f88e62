#include "source.h"

#include <cctype>
#include <cstdlib>
#include <set>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace cudasim {
namespace {

struct Token {
  enum Kind { word, string, space, directive, symbol } kind;
  std::string text;
  /// The position in the file that the preprocessor read.
  std::string file;
  int line;

  bool is(const char* wanted) const { return kind != string && text == wanted; }
  bool blank() const { return kind == space || kind == directive; }
};

bool in_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

/// Splits preprocessed text. It contains no comments and no macros; lines `# 12 "file"` give the
/// position.
std::vector<Token> split(const std::string& text) {
  std::vector<Token> tokens;
  std::string file;
  int line = 1;
  size_t at = 0;
  bool line_start = true;
  while (at < text.size()) {
    size_t begin = at;
    char c = text[at];
    Token::Kind kind = Token::symbol;
    if (line_start && c == '#') {
      kind = Token::directive;
      at = text.find('\n', at);
      if (at == std::string::npos) at = text.size();
    } else if (std::isspace(static_cast<unsigned char>(c))) {
      kind = Token::space;
      while (at < text.size() && std::isspace(static_cast<unsigned char>(text[at])))
        if (text[at++] == '\n') break;
    } else if (c == '"' || c == '\'') {
      kind = Token::string;
      for (at++; at < text.size() && text[at] != c; at++)
        if (text[at] == '\\') at++;
      at++;
    } else if (in_word(c)) {
      kind = Token::word;
      // A number may contain quotes between digits.
      bool number = std::isdigit(static_cast<unsigned char>(c));
      while (at < text.size() && (in_word(text[at]) || (number && text[at] == '\''))) at++;
    } else {
      at++;
    }
    tokens.push_back({kind, text.substr(begin, at - begin), file, line});
    const std::string& piece = tokens.back().text;
    line_start = piece.back() == '\n' || (line_start && kind == Token::space);
    if (kind == Token::space && piece.back() == '\n') line++;
    if (kind == Token::directive && piece.size() > 2 &&
        std::isdigit(static_cast<unsigned char>(piece[2]))) {
      line = std::atoi(piece.c_str() + 2) - 1;
      size_t quote = piece.find('"');
      if (quote != std::string::npos)
        file = piece.substr(quote + 1, piece.find('"', quote + 1) - quote - 1);
    }
  }
  return tokens;
}

[[noreturn]] void refuse(const Token& at, const std::string& why) {
  throw SourceError(at.file + "(" + std::to_string(at.line) + "): error: " + why);
}

/// The index after the bracket that closes the one at `open`.
size_t behind_brackets(const std::vector<Token>& tokens, size_t open) {
  int depth = 0;
  for (size_t i = open; i < tokens.size(); i++) {
    if (tokens[i].is("(") || tokens[i].is("[") || tokens[i].is("{")) depth++;
    if (tokens[i].is(")") || tokens[i].is("]") || tokens[i].is("}"))
      if (--depth == 0) return i + 1;
  }
  refuse(tokens[open], "a bracket is not closed");
}

size_t skip_blank(const std::vector<Token>& tokens, size_t at) {
  while (at < tokens.size() && tokens[at].blank()) at++;
  return at;
}

bool is_attribute(const Token& token) {
  return token.is("__attribute__") || token.is("alignas") || token.is("__launch_bounds__") ||
         token.is("decltype") || token.is("noexcept") || token.is("asm") || token.is("__asm__");
}

std::string join(const std::vector<Token>& tokens, size_t from, size_t to) {
  std::string text;
  for (size_t i = from; i < to; i++)
    if (tokens[i].kind != Token::directive) text += tokens[i].text;
  return text;
}

// ---- which functions can make a thread wait for another ----

/// A declaration at namespace level: its name and the names that it mentions.
struct Declaration {
  std::string name;
  std::vector<std::string> mentions;
  /// Whether it calls a `suspend_` function of the simulator.
  bool suspends = false;
};

/// The name that a declaration introduces, or an empty string.
std::string declared_name(const std::vector<const Token*>& tokens) {
  size_t at = 0;
  if (tokens[0]->is("template")) {
    int depth = 0;
    for (at = 1; at < tokens.size(); at++) {
      if (tokens[at]->is("<")) depth++;
      if (tokens[at]->is(">") && --depth == 0) break;
    }
    at++;
  }
  for (bool type = false; at < tokens.size(); at++) {
    const Token& token = *tokens[at];
    if (token.is("struct") || token.is("class") || token.is("union") || token.is("enum"))
      type = true;
    bool ends = token.is("(") || token.is("=") || token.is("{") || token.is(";");
    if (is_attribute(token)) {
      int depth = 0;
      for (at++; at < tokens.size(); at++) {
        if (tokens[at]->is("(")) depth++;
        if (tokens[at]->is(")") && --depth == 0) break;
      }
    } else if (ends || (type && token.is(":"))) {
      return at > 0 && tokens[at - 1]->kind == Token::word ? tokens[at - 1]->text : "";
    }
  }
  return "";
}

void finish(std::vector<const Token*>& tokens, std::vector<Declaration>& declarations) {
  if (tokens.empty()) return;
  Declaration declaration;
  declaration.name = declared_name(tokens);
  for (size_t i = 0; i < tokens.size(); i++) {
    if (tokens[i]->kind != Token::word) continue;
    bool call = i >= 2 && tokens[i - 1]->is(">") && tokens[i - 2]->is("-");
    if (call && tokens[i]->text.rfind("suspend_", 0) == 0) declaration.suspends = true;
    declaration.mentions.push_back(tokens[i]->text);
  }
  declarations.push_back(std::move(declaration));
  tokens.clear();
}

std::vector<Declaration> declarations_of(const std::vector<Token>& tokens) {
  std::vector<Declaration> declarations;
  std::vector<const Token*> current;
  int depth = 0;
  for (const Token& token : tokens) {
    if (token.blank()) continue;
    current.push_back(&token);
    if (token.is("{") && depth == 0) {
      bool space =
          current[0]->is("namespace") || (current[0]->is("inline") && current[1]->is("namespace"));
      bool linkage =
          current.size() == 3 && current[0]->is("extern") && current[1]->kind == Token::string;
      if (space || linkage) {
        current.clear();  // the contents of the block are at namespace level
        continue;
      }
    }
    if (token.is("{") || token.is("(")) depth++;
    if (token.is("}") || token.is(")")) {
      if (depth == 0) {
        current.clear();  // the end of a namespace
        continue;
      }
      if (--depth == 0 && token.is("}")) finish(current, declarations);
    }
    if (token.is(";") && depth == 0) finish(current, declarations);
  }
  return declarations;
}

/// Names of all functions that may suspend a thread, directly or through other functions.
std::unordered_set<std::string> suspending_names(const std::vector<Token>& tokens) {
  std::vector<Declaration> declarations = declarations_of(tokens);
  std::unordered_map<std::string, std::vector<const Declaration*>> mentioned_by;
  std::unordered_set<std::string> names;
  std::vector<std::string> next;
  auto add = [&](const Declaration& declaration) {
    if (!declaration.name.empty() && names.insert(declaration.name).second)
      next.push_back(declaration.name);
  };
  for (const Declaration& declaration : declarations) {
    for (const std::string& mention : declaration.mentions)
      mentioned_by[mention].push_back(&declaration);
    if (declaration.suspends) add(declaration);
  }
  while (!next.empty()) {
    std::string name = std::move(next.back());
    next.pop_back();
    for (const Declaration* declaration : mentioned_by[name]) add(*declaration);
  }
  return names;
}

// ---- rewriting ----

struct Kernel {
  std::string name;
  std::string bounds;
};

class Translator {
 public:
  explicit Translator(const std::string& text) : tokens_(split(text)) {}

  std::string run() {
    for (size_t i = 0; i < tokens_.size();) {
      const Token& token = tokens_[i];
      if (token.is("{")) depth_++;
      if (token.is("}")) depth_--;
      if (token.is("__global__")) {
        // A template has no code until it is instantiated.
        if (last_piece_ >= pieces_.size() || pieces_[last_piece_] != ">") note_kernel(i);
        i++;
      } else if (token.is("__launch_bounds__")) {
        i = behind_brackets(tokens_, skip_blank(tokens_, i + 1));
      } else if (token.is("__shared__")) {
        i = shared_declaration(i);
      } else {
        if (!token.blank()) last_piece_ = pieces_.size();
        pieces_.push_back(token.text);
        i++;
      }
    }
    std::string out;
    for (const std::string& piece : pieces_) out += piece;
    return out + glue();
  }

 private:
  /// `__global__ void __launch_bounds__(256) name(..)`
  void note_kernel(size_t at) {
    Kernel kernel;
    for (size_t i = at + 1; i < tokens_.size(); i++) {
      if (is_attribute(tokens_[i])) {
        size_t open = skip_blank(tokens_, i + 1), behind = behind_brackets(tokens_, open);
        if (tokens_[i].is("__launch_bounds__")) kernel.bounds = join(tokens_, open + 1, behind - 1);
        i = behind - 1;
      } else if (tokens_[i].is("(")) {
        for (size_t j = i; kernel.name.empty() && j-- > at;)
          if (tokens_[j].kind == Token::word) kernel.name = tokens_[j].text;
        break;
      } else if (tokens_[i].is(";") || tokens_[i].is("{")) {
        break;
      }
    }
    if (kernel.name.empty()) refuse(tokens_[at], "`__global__` without a function");
    if (names_.insert(kernel.name).second) kernels_.push_back(kernel);
  }

  /// Removes a storage class that precedes `__shared__`.
  bool take_back(const char* word) {
    if (last_piece_ >= pieces_.size() || pieces_[last_piece_] != word) return false;
    pieces_[last_piece_].clear();
    return true;
  }

  size_t shared_declaration(size_t at) {
    if (depth_ == 0) refuse(tokens_[at], "shared memory is declared inside functions here");
    bool dynamic = take_back("extern");
    take_back("static");
    std::vector<Token> parts;
    size_t i = at + 1;
    for (; i < tokens_.size() && !tokens_[i].is(";"); i++) {
      if (tokens_[i].is("extern")) {
        dynamic = true;
      } else if (is_attribute(tokens_[i]) && !tokens_[i].is("decltype")) {
        i = behind_brackets(tokens_, skip_blank(tokens_, i + 1)) - 1;
      } else if (!tokens_[i].blank()) {
        parts.push_back(tokens_[i]);
      }
    }
    size_t name = parts.size();
    for (size_t p = 0, angle = 0; p < parts.size() && !parts[p].is("["); p++) {
      if (parts[p].is("<")) angle++;
      if (parts[p].is(">")) angle--;
      if (parts[p].is(",") && angle == 0) refuse(tokens_[at], "one shared array a declaration");
      if (parts[p].is("=")) refuse(tokens_[at], "shared memory has no initial value");
      name = p;
    }
    if (name == 0 || name >= parts.size() || parts[name].kind != Token::word)
      refuse(tokens_[at], "this declaration of shared memory is not understood");
    std::string type, dimensions;
    for (size_t p = 0; p < name; p++) type += parts[p].text + ' ';
    for (size_t p = name + 1; p < parts.size(); p++) dimensions += parts[p].text + ' ';
    pieces_.push_back(dynamic ? dynamic_array(type, parts[name].text, parts, name)
                              : static_array(type, parts[name].text, dimensions));
    return i;
  }

  std::string static_array(const std::string& type, const std::string& name,
                           const std::string& dimensions) {
    std::string memory = "::cudasim::api->static_shared(__PRETTY_FUNCTION__, " +
                         std::to_string(declarations_++) + ", sizeof(" + type + dimensions + "))";
    return type + "(&" + name + ")" + dimensions + " = *reinterpret_cast<" + type + "(*)" +
           dimensions + ">(" + memory + ")";
  }

  /// `extern __shared__ T name[]`, optionally with further dimensions.
  static std::string dynamic_array(const std::string& type, const std::string& name,
                                   const std::vector<Token>& parts, size_t name_at) {
    if (name_at + 2 >= parts.size() || !parts[name_at + 1].is("[") || !parts[name_at + 2].is("]"))
      refuse(parts[name_at], "dynamic shared memory is an array without a size");
    std::string rest;
    for (size_t p = name_at + 3; p < parts.size(); p++) rest += parts[p].text + ' ';
    return type + "(*" + name + ")" + rest + " = reinterpret_cast<" + type + "(*)" + rest +
           ">(::cudasim::api->dynamic_shared())";
  }

  std::string glue() const {
    auto suspending = suspending_names(tokens_);
    std::string out = "\n";
    for (const Kernel& kernel : kernels_)
      out +=
          "extern \"C\" __attribute__((visibility(\"default\"))) const ::cudasim::KernelEntry "
          "cudasim_kernel_" +
          kernel.name + " = ::cudasim::Glue<&" + kernel.name + ">::entry(::cudasim::first_bound(" +
          kernel.bounds + "), " + (suspending.count(kernel.name) ? "true" : "false") + ");\n";
    return out;
  }

  std::vector<Token> tokens_;
  std::vector<std::string> pieces_;
  size_t last_piece_ = 0;
  int depth_ = 0;
  int declarations_ = 0;
  std::vector<Kernel> kernels_;
  std::set<std::string> names_;
};

}  // namespace

std::string translate(const std::string& preprocessed) { return Translator(preprocessed).run(); }

}  // namespace cudasim
