#include "data/readers/byte_stream.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "core/error.h"

namespace lathe::data {
namespace {

constexpr std::string_view gzip_magic = "\x1F\x8B", zstd_magic = "\x28\xB5\x2F\xFD";
// Skippable frames, which some writers put first: 0x184D2A50 to 0x184D2A5F, little-endian.
bool begins_as_skippable(std::string_view bytes) {
  return bytes.size() >= 4 && (bytes[0] & 0xF0) == 0x50 && bytes.substr(1, 3) == "\x2A\x4D\x18";
}
bool begins_as_zstd(std::string_view bytes) { return bytes.starts_with(zstd_magic) || begins_as_skippable(bytes); }

constexpr size_t buffer_bytes = 256 << 10;
// zstd's own bound for unpacking: what needs more is made by --long, and says so.
constexpr int largest_window_log = 27;

// The input as it is, with a buffer in front that decoders consume from.
class Source {
 public:
  explicit Source(const std::string& input) : name_(input == standard_input ? "standard input" : input) {
    descriptor_ = input == standard_input ? ::dup(STDIN_FILENO) : ::open(input.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor_ < 0) throw ResourceError("cannot open " + name_ + ": " + std::strerror(errno));
    struct stat status = {};
    if (::fstat(descriptor_, &status) == 0 && S_ISDIR(status.st_mode)) {
      ::close(descriptor_);
      throw ResourceError("cannot read " + name_ + ": it is a folder, a file was expected");
    }
    XXH64_reset(hash_.get(), 0);
    while (end_ < 4 && fill()) {
    }
  }
  ~Source() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;

  const std::string& name() const { return name_; }
  std::string_view buffered() const { return {buffer_.data() + begin_, end_ - begin_}; }
  void consume(size_t bytes) { begin_ += bytes; }
  // More bytes into the buffer, behind what is there; false at the end.
  bool fill() {
    if (begin_ == end_) begin_ = end_ = 0;
    if (ended_ || end_ == buffer_.size()) return false;
    for (;;) {
      const ssize_t count = ::read(descriptor_, buffer_.data() + end_, buffer_.size() - end_);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0)
        throw ResourceError("cannot read " + name_ + " after " + std::to_string(read_) +
                            " bytes: " + std::strerror(errno));
      XXH64_update(hash_.get(), buffer_.data() + end_, static_cast<size_t>(count));
      end_ += static_cast<size_t>(count);
      read_ += count;
      ended_ = count == 0;
      return count > 0;
    }
  }
  int64_t offset() const { return read_ - static_cast<int64_t>(end_ - begin_); }
  SourceBytes read_so_far() const { return {read_, XXH64_digest(hash_.get())}; }

 private:
  struct FreeHash {
    void operator()(XXH64_state_t* state) const { XXH64_freeState(state); }
  };
  std::string name_;
  int descriptor_ = -1;
  std::vector<char> buffer_ = std::vector<char>(buffer_bytes);
  size_t begin_ = 0, end_ = 0;
  int64_t read_ = 0;
  bool ended_ = false;
  std::unique_ptr<XXH64_state_t, FreeHash> hash_{XXH64_createState()};
};

class PlainStream final : public ByteStream {
 public:
  explicit PlainStream(std::unique_ptr<Source> source) : source_(std::move(source)) {}
  size_t read(std::span<char> buffer) override {
    if (source_->buffered().empty() && !source_->fill()) return 0;
    const size_t count = source_->buffered().copy(buffer.data(), buffer.size());
    source_->consume(count);
    return count;
  }
  SourceBytes source() const override { return source_->read_so_far(); }
  bool unpacks() const override { return false; }

 private:
  std::unique_ptr<Source> source_;
};

[[noreturn]] void cut_short(const Source& source, const char* kind) {
  throw FormatError(source.name(), source.offset(),
                    std::string("the ") + kind +
                        " data ends here, in the middle; the file was cut short on its way, "
                        "so fetch or pack it again");
}

class GzipStream final : public ByteStream {
 public:
  explicit GzipStream(std::unique_ptr<Source> source) : source_(std::move(source)) {
    // 15 + 16: the largest window, and gzip's header and checksum.
    if (inflateInit2(&state_, 15 + 16) != Z_OK) throw ResourceError("cannot unpack " + source_->name() + ": no memory");
  }
  ~GzipStream() override { inflateEnd(&state_); }
  GzipStream(const GzipStream&) = delete;
  GzipStream& operator=(const GzipStream&) = delete;

  size_t read(std::span<char> buffer) override {
    state_.next_out = reinterpret_cast<Bytef*>(buffer.data());
    state_.avail_out = static_cast<uInt>(std::min<size_t>(buffer.size(), 1 << 30));
    const uInt room = state_.avail_out;
    while (state_.avail_out == room) {
      if (source_->buffered().empty() && !source_->fill()) {
        if (inside_member_) cut_short(*source_, "gzip");
        return 0;
      }
      if (!inside_member_ && !begin_member()) return 0;
      step();
    }
    return room - state_.avail_out;
  }
  SourceBytes source() const override { return source_->read_so_far(); }
  bool unpacks() const override { return true; }

 private:
  // Several members in a row are one file, and zeros may follow the last (tapes, block devices).
  bool begin_member() {
    if (first_) {
      first_ = false;
    } else if (source_->buffered()[0] == '\0') {
      do {
        if (source_->buffered().find_first_not_of('\0') != std::string_view::npos)
          throw FormatError(source_->name(), source_->offset(), "bytes that are no gzip follow the gzip data");
        source_->consume(source_->buffered().size());
      } while (source_->fill());
      return false;
    } else {
      inflateReset(&state_);
    }
    inside_member_ = true;
    return true;
  }
  void step() {
    const std::string_view in = source_->buffered();
    state_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in.data()));
    state_.avail_in = static_cast<uInt>(in.size());
    const int result = inflate(&state_, Z_NO_FLUSH);
    source_->consume(in.size() - state_.avail_in);
    if (result == Z_STREAM_END) {
      inside_member_ = false;
    } else if (result != Z_OK && result != Z_BUF_ERROR) {
      throw FormatError(
          source_->name(), source_->offset(),
          std::string("the gzip data is broken") + (state_.msg ? std::string(" (") + state_.msg + ")" : ""));
    }
  }

  std::unique_ptr<Source> source_;
  z_stream state_ = {};
  bool inside_member_ = false, first_ = true;
};

class ZstdStream final : public ByteStream {
 public:
  explicit ZstdStream(std::unique_ptr<Source> source) : source_(std::move(source)), state_(ZSTD_createDStream()) {
    if (!state_) throw ResourceError("cannot unpack " + source_->name() + ": no memory");
    ZSTD_DCtx_setParameter(state_.get(), ZSTD_d_windowLogMax, largest_window_log);
  }
  size_t read(std::span<char> buffer) override {
    ZSTD_outBuffer out = {buffer.data(), buffer.size(), 0};
    while (out.pos == 0) {
      // What is unpacked already may wait for room: then the decoder is called without new bytes.
      if (source_->buffered().empty() && !waiting_ && !source_->fill()) {
        if (inside_frame_) cut_short(*source_, "zstd");
        return 0;
      }
      const std::string_view in = source_->buffered();
      ZSTD_inBuffer from = {in.data(), in.size(), 0};
      const size_t result = ZSTD_decompressStream(state_.get(), &out, &from);
      if (ZSTD_isError(result)) {
        const bool window = std::strstr(ZSTD_getErrorName(result), "too much memory") != nullptr;
        throw FormatError(source_->name(), source_->offset(),
                          window ? "the zstd data needs a window above 128 MiB; unpack it first (unzstd --long=31)"
                                 : std::string("the zstd data is broken (") + ZSTD_getErrorName(result) + ")");
      }
      source_->consume(from.pos);
      inside_frame_ = result != 0;
      waiting_ = out.pos == out.size && inside_frame_;
    }
    return out.pos;
  }
  SourceBytes source() const override { return source_->read_so_far(); }
  bool unpacks() const override { return true; }

 private:
  struct FreeState {
    void operator()(ZSTD_DStream* state) const { ZSTD_freeDStream(state); }
  };
  std::unique_ptr<Source> source_;
  std::unique_ptr<ZSTD_DStream, FreeState> state_;
  bool inside_frame_ = false, waiting_ = false;
};

}  // namespace

bool begins_as_packed(std::string_view bytes) { return bytes.starts_with(gzip_magic) || begins_as_zstd(bytes); }

std::unique_ptr<ByteStream> open_byte_stream(const std::string& input) {
  auto source = std::make_unique<Source>(input);
  const std::string_view first = source->buffered();
  if (first.starts_with(gzip_magic)) return std::make_unique<GzipStream>(std::move(source));
  if (begins_as_zstd(first)) return std::make_unique<ZstdStream>(std::move(source));
  return std::make_unique<PlainStream>(std::move(source));
}

}  // namespace lathe::data
