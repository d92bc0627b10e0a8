// The wrapper beside what tests/bindings/api.py has read of the C header. The types are the
// compiler's to compare, since the wrapper includes that header; that nothing is left out is not.

#include <algorithm>
#include <filesystem>
#include <regex>
#include <set>

#include "channel_layer_json.hpp"
#include "check.hpp"

using namespace channel_layer;
using nlohmann::json;

static const json &api() {
    static const json read =
        json::parse(check::content(check::environment("CHANNEL_LAYER_TEST_API")));
    return read;
}

/// The wrapper's headers without their comments, which name functions that it need not call.
static const std::string &code() {
    static const std::string text = [] {
        const std::regex comment("/\\*[^]*?\\*/|//[^\n]*");
        std::string all;
        for (const auto &header : std::filesystem::directory_iterator(WRAPPER)) {
            all += std::regex_replace(check::content(header.path()), comment, "");
        }
        return all;
    }();
    return text;
}

static std::set<std::string> found(const char *pattern) {
    const std::regex expression(pattern);
    std::set<std::string> names;
    for (auto at = std::sregex_iterator(code().begin(), code().end(), expression);
         at != std::sregex_iterator(); ++at) {
        names.insert((*at)[1].str());
    }
    return names;
}

static std::set<std::string> keys(const json &object) {
    std::set<std::string> names;
    for (const auto &item : object.items()) {
        names.insert(item.key());
    }
    return names;
}

static void equal(const std::set<std::string> &is, const std::set<std::string> &should) {
    std::vector<std::string> odd;
    std::set_symmetric_difference(is.begin(), is.end(), should.begin(), should.end(),
                                  std::back_inserter(odd));
    if (!odd.empty()) {
        throw check::failed(odd[0] + " is in one of wrapper and header only");
    }
}

TEST(each_function_of_the_header_is_called_by_the_wrapper) {
    equal(found("::(layer_[a-z_]+)\\("), keys(api().at("functions")));
}

TEST(each_value_of_an_enum_of_the_header_is_one_of_the_wrapper) {
    std::set<std::string> values;
    for (const auto &each : api().at("enums")) {
        values.merge(keys(each.at("values")));
    }
    equal(found("= (LAYER_[A-Z_]+),"), values);
}

TEST(the_enums_of_the_wrapper_travel_in_the_types_of_the_header) {
    const auto &enums = api().at("enums");
    CHECK(enums.size() == 6);
    for (const char *name : {"layer_status_t", "layer_log_level_t", "layer_state_t",
                             "layer_isolation_t", "layer_flow_t"}) {
        CHECK(enums.at(name).at("type") == "int32_t");
    }
    CHECK(enums.at("layer_stat_t").at("type") == "uint32_t");
    static_assert(std::is_same_v<std::underlying_type_t<status_code>, std::int32_t>);
    static_assert(std::is_same_v<std::underlying_type_t<log_level>, std::int32_t>);
    static_assert(std::is_same_v<std::underlying_type_t<connection_state>, std::int32_t>);
    static_assert(std::is_same_v<std::underlying_type_t<isolation_kind>, std::int32_t>);
    static_assert(std::is_same_v<std::underlying_type_t<flow>, std::int32_t>);
    static_assert(std::is_same_v<std::underlying_type_t<statistic>, std::uint32_t>);
}

TEST(each_handle_of_the_header_is_freed_by_the_wrapper) {
    for (const auto &handle : api().at("handles")) {
        const auto name = handle.get<std::string>();
        CHECK(code().find("::" + name.substr(0, name.size() - 2) + "_free(") != std::string::npos);
    }
}

TEST(the_readme_has_the_signature_of_each_callable) {
    const std::string readme = check::content(std::string(WRAPPER) + "/../../README.md");
    const std::regex broken("\n *///"), signature("`void\\([^`]*`");
    std::set<std::string> named;
    for (const char *header : {"/options.hpp", "/layer.hpp"}) {
        const auto text =
            std::regex_replace(check::content(std::string(WRAPPER) + header), broken, "");
        for (auto at = std::sregex_iterator(text.begin(), text.end(), signature);
             at != std::sregex_iterator(); ++at) {
            named.insert(at->str());
        }
    }
    CHECK(named.size() == 5);
    for (const auto &each : named) {
        if (readme.find(each) == std::string::npos) {
            throw check::failed(each + " is not in the README");
        }
    }
}

TEST(each_status_has_its_name) {
    for (const auto &[name, number] : api().at("enums").at("layer_status_t").at("values").items()) {
        CHECK(to_string(static_cast<status_code>(number.get<std::int32_t>())) == name);
    }
}

TEST(the_version_of_the_library_is_that_of_the_header) {
    CHECK(version() == api().at("constants").at("LAYER_VERSION").get<std::string>());
    CHECK(api().at("constants").at("LAYER_ABI_VERSION") == LAYER_ABI_VERSION);
    CHECK(api().at("constants").at("LAYER_NAME_SIZE") == LAYER_NAME_SIZE);
}

int main(int argc, char **argv) { return check::run(argc, argv); }
